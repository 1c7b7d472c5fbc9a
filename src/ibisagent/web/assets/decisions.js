/* What a person decides on the page. What the file said when the page was made, under what was decided here since;
   the latter is kept by the browser, and on a served page it is sent to the file and then forgotten. */
function decisionStore(data, tell) {
  const key = `ibisagent-decisions:${data.identity}`;
  const filed = new Map(data.decisions.map((line) => [line.trajectory_id, line]));
  const here = new Map();
  let kept = true, sending = false;
  try {
    for (const line of JSON.parse(localStorage.getItem(key) || "[]")) {
      const known = ["accept", "reject", "undecided"].includes(line.decision);
      if (known && typeof line.trajectory_id === "string" && typeof line.note === "string") here.set(line.trajectory_id, line);
    }
  } catch { kept = false; }

  function keep() {
    try {
      if (here.size) localStorage.setItem(key, JSON.stringify([...here.values()]));
      else localStorage.removeItem(key);
      kept = true;
    } catch { kept = false; } /* storage may be full or forbidden */
  }
  const get = (id) => here.get(id) || filed.get(id) || { trajectory_id: id, decision: "undecided", note: "" };
  function set(id, change) {
    const before = get(id), after = { trajectory_id: id, decision: before.decision, note: before.note, ...change };
    if (after.decision === before.decision && after.note === before.note) return false;
    if (data.who) after.who = data.who;
    here.set(id, after);
    keep();
    say();
    return true;
  }
  function say() {
    if (data.token) {
      if (sending) tell("saving …", false);
      else tell(here.size ? `${here.size} not saved` : "saved", here.size > 0);
    } else if (here.size) tell(kept ? "kept in this browser" : "not kept: download before you leave", !kept);
    else tell("", false);
  }

  /* One at a time and in order, so that the file's last line is the last word. */
  async function send() {
    if (!data.token || sending || !here.size) return;
    sending = true;
    say();
    let problem = "";
    for (const [id, line] of [...here]) {
      try {
        const reply = await fetch("/decide", {
          method: "POST",
          headers: { "Content-Type": "application/json", "X-Ibisagent-Token": data.token },
          body: JSON.stringify({ trajectory_id: id, decision: line.decision, note: line.note }),
        });
        if (!reply.ok) throw new Error(await reply.text());
      } catch (error) {
        problem = error instanceof TypeError ? "the command no longer runs" : error.message;
        break;
      }
      filed.set(id, line);
      if (here.get(id) === line) here.delete(id);
      keep();
    }
    sending = false;
    if (problem) tell(`${here.size} not saved: ${problem}`, true);
    else if (here.size) send();
    else say();
  }

  /* Every decision that holds, of all trajectories of the file, as its lines. */
  function lines() {
    const all = new Map([...filed, ...here]);
    return [...all.values()].map((line) => JSON.stringify(line) + "\n").join("");
  }
  return { get, set, send, say, lines };
}
