"""What can be asked for on the command line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ibisagent import __version__
from ibisagent.cli.compare import add_compare
from ibisagent.cli.data_parser import add_data
from ibisagent.cli.values import amount, at_least, device, seconds
from ibisagent.cli.volume_options import add_volume_options

__all__ = ["UsageError", "build_parser"]

_POLICIES = "nano, vlm:PATH_OR_ID, api:MODEL, scripted:FILE or oracle"
_SEGMENTERS = "litemedsam, sam:PATH_OR_ID, sam2:PATH_OR_ID, medsam2:PATH_OR_ID or rules"
_DEVICES = "cpu, cuda, cuda:1, mps or auto (%(default)s)"


class UsageError(Exception):
    """The arguments do not fit the command; the message is one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print and exit with."""
        raise UsageError(f"{message} ({self.prog} --help shows the usage)")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. Its errors are :class:`UsageError`."""
    parser = _Parser(
        prog="ibisagent",
        description="An agent that segments medical images from plain sentences: it looks, clicks, and looks again.",
        epilog="Exit codes: 0 done or uncertain, 2 bad input, 3 absent target, 4 out of steps, 5 tool or model failed "
        "or some rows of a case list cannot be used.",
    )
    parser.add_argument("--version", action="version", version=f"ibisagent {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _segment(commands.add_parser("segment", help="segment an image or a volume from a sentence", allow_abbrev=False))
    _batch(commands.add_parser("batch", help="segment many studies, one load of the models", allow_abbrev=False))
    _evaluate(commands.add_parser("evaluate", help="play and score a case list", allow_abbrev=False))
    _report(commands.add_parser("report", help="a page, tables and plots of what was played", allow_abbrev=False))
    add_compare(commands.add_parser("compare", help="hold runs against one another", allow_abbrev=False))
    _synthesize(commands.add_parser("synthesize", help="make training corpora of data sets", allow_abbrev=False))
    _replay(commands.add_parser("replay", help="re-run a recorded episode, compare every mask", allow_abbrev=False))
    add_data(commands.add_parser("data", help="show, review, describe and convert corpora", allow_abbrev=False))
    _doctor(commands.add_parser("doctor", help="say what is installed and found", allow_abbrev=False))
    train = commands.add_parser("train", help="train agents and the embedded models", allow_abbrev=False)
    recipes = ["sft", "rl", "plot", "plan", "segmenter", "nano"]
    train.add_argument("recipe", choices=recipes, help="RECIPE --help shows its options")
    return parser


def _segment(p: argparse.ArgumentParser) -> None:
    p.description = (
        "Segment one image or volume from a sentence. A volume gives a mask on its own grid, overlay.png, volume.json, "
        "volume.html and measurements.json; an image, or one slice with --slice, a mask, overlay.png, episode.json and "
        "episode.html."
    )
    p.add_argument(
        "image",
        metavar="STUDY",
        help="a DICOM folder or file, NIfTI, NRRD, MetaImage, TIFF, PNG or JPEG; with --region a whole slide",
    )
    p.add_argument("instruction", metavar="INSTRUCTION", help='what to segment, for example "Outline the left lung."')
    p.add_argument("--mask", metavar="M", help="a mask to refine")
    p.add_argument("--target", metavar="MASK", help="the reference mask; serves --policy oracle alone")
    _players(p)
    p.add_argument("--out", metavar="DIR", help="folder for the results (default: STUDY's name + _ibisagent)")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    _writing(p)
    p.add_argument("--label", metavar="NAME", help="the mask's name in DICOM and NRRD (default: from the instruction)")
    g = _reading(p)
    g.add_argument("--slice", metavar="SPEC", help="one slice of a volume: axial:57, coronal (default: all of it)")
    g.add_argument("--series", metavar="N", help="which series of a DICOM folder, as the message numbers them")
    g.add_argument("--region", metavar="X,Y,W,H", help="part of a whole slide, in pixels of its finest level")
    g.add_argument("--mpp", metavar="X", type=amount, help="micrometres per pixel at which a slide is read")
    add_volume_options(p)


def _batch(p: argparse.ArgumentParser) -> None:
    p.description = (
        "Segment every study of a folder or a list. Each gets a folder with what `segment` writes; manifest.jsonl and "
        "manifest.csv have the outcome of each. Interrupted, the same command goes on."
    )
    p.add_argument(
        "studies",
        metavar="STUDIES",
        help="a folder (every image file, every folder of DICOM files), or a list that ends in .jsonl or .csv with the "
        "columns study, and if need be instruction, id, series, slice, window, modality, label, mask",
    )
    p.add_argument("instruction", metavar="INSTRUCTION", nargs="?", help="what to segment, where a list does not say")
    p.add_argument("--out", metavar="DIR", required=True, help="folder for the results")
    p.add_argument(
        "--include", metavar="GLOB", action="append", help="only paths below the folder such as '*_ct.nii.gz'"
    )
    p.add_argument("--exclude", metavar="GLOB", action="append", help="no paths such as '*_label*'; may be repeated")
    p.add_argument("--retry", action="store_true", help="try those again that failed")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    _players(p)
    _writing(p)
    _reading(p)
    add_volume_options(p, with_range=False)
    g = p.add_argument_group("who works")
    g.add_argument("--processes", metavar="N", type=at_least(1), help="workers, each with its own models (1)")
    g.add_argument("--threads", metavar="N", type=at_least(1), help="threads of a worker on the CPU")
    g.add_argument("--executor", choices=["processes", "ray"], default="processes", help="(default: %(default)s)")
    g.add_argument(
        "--ray-address", metavar="A", help="address of a Ray cluster (default: the environment's, or a new one)"
    )


def _evaluate(p: argparse.ArgumentParser) -> None:
    p.description = (
        "Play every case of a list and keep every run; writes run.json, results.jsonl, episodes, images, cases.csv and "
        "summary.json. Interrupted, the same command goes on. Or ask visual questions; writes summary.json, "
        "answers.csv and run.json."
    )
    p.add_argument(
        "cases",
        metavar="CASES",
        nargs="?",
        help="a JSONL file, one case a line (data/mini/README.md describes the format), or a folder with a "
        "cases.jsonl; a data set KIND:PATH as for synthesize, a case a target; or visual questions: "
        "corpus:FOLDER, vqa-rad:DIR, slake:DIR, pathvqa:DIR or mecovqa:FILE, with ?split=NAME&number=N",
    )
    _players(p)
    p.add_argument("--split", metavar="NAME", help="only the rows of this split, for example val (questions: test)")
    p.add_argument("--limit", metavar="N", type=at_least(1), help="only the first N rows (of the split)")
    p.add_argument("--library", choices=["core", "full"], default="core", help="instruction templates (%(default)s)")
    p.add_argument("--out", metavar="DIR", default="ibisagent-evaluation", help="folder for the results (%(default)s)")
    p.add_argument("--overwrite", action="store_true", help="remove a run of other settings that DIR holds")
    p.add_argument("--report", action="store_true", help="write a report, too, into DIR/report (ibisagent report)")
    p.add_argument("--no-images", action="store_true", help="do not keep the pixels that were looked at in DIR/images")
    p.add_argument(
        "--protocol",
        metavar="P",
        help="NAME or NAME?option=value&...: domains, cvpr25, noc, biomedparse, mecovqa-g or reasonseg "
        "(docs/evaluation.md describes them); adds protocol-NAME.json, also to a run that is scored again",
    )
    p.add_argument("--also", metavar="CASES", action="append", help="another list, played in the same run")
    p.add_argument("--rescore", metavar="DIR", help="score a stored run or lab again: no CASES, no data, no model")
    p.add_argument("--json", action="store_true", help="print the summary on standard output")
    g = p.add_argument_group("who works (results are the same)")
    g.add_argument(
        "--batch", metavar="N", type=at_least(1), help="cases that a worker plays at a time (1; on a GPU or a server 8)"
    )
    g.add_argument(
        "--processes", metavar="N", type=at_least(1), help="workers (default: one a core for a small policy, else 1)"
    )
    g.add_argument(
        "--threads", metavar="N", type=at_least(1), help="threads of a worker on the CPU (1; large models: all cores)"
    )
    g.add_argument("--executor", choices=["processes", "ray"], default="processes", help="(default: %(default)s)")
    g.add_argument("--ray-address", metavar="A", help="address of a Ray cluster (default: RAY_ADDRESS, or one here)")
    g = p.add_argument_group("a lab: the same cases played in many ways (docs/evaluation.md describes every arm)")
    g.add_argument(
        "--arms",
        metavar="A,A",
        help="all, or some of baselines, ceiling, robustness, wording, ablations, segmenters, policies, or single arms",
    )
    g.add_argument("--subset", metavar="N", type=at_least(1), help="N cases spread over targets, always the same ones")
    g.add_argument("--segmenters", metavar="S,S", help="segmenters that the same policy plays with, an arm each")
    g.add_argument("--other", metavar="P", action="append", help="another policy with the same tool, an arm of its own")
    g.add_argument("--absent", metavar="FILE", action="append", help="a case list of absent targets, an arm of its own")
    g.add_argument(
        "--wordings", metavar="K", type=at_least(1), help="categories of each stage that a case is told in (2)"
    )


def _report(p: argparse.ArgumentParser) -> None:
    p.description = (
        "Write what was played as a page (index.html), as Markdown, LaTeX and JSON, and as plots; it needs neither the "
        "data nor a model."
    )
    p.add_argument("runs", metavar="RUN_OR_LAB", nargs="+", help="folders of evaluate; the first is reported on")
    p.add_argument("--out", metavar="DIR", help="folder of the report (default: report in the first folder)")
    p.add_argument("--title", metavar="TEXT", help="heading (default: who played with what)")
    p.add_argument("--worst", metavar="N", type=at_least(0), default=12, help="cases of each gallery (%(default)s)")
    p.add_argument(
        "--episodes",
        choices=["failures", "all", "none"],
        default="failures",
        help="cases that get a page of their own (%(default)s)",
    )
    p.add_argument("--no-plots", dest="plots", action="store_false", help="write no plots as files (the page has them)")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _synthesize(p: argparse.ArgumentParser) -> None:
    p.description = (
        "Turn segmentation data sets into corpora: trajectories for supervised fine-tuning, prompts for reinforcement "
        "learning, test cases. Interrupted, the same command goes on."
    )
    p.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        help="KIND:PATH or KIND:PATH?option=value&..., for example mini:data/mini/cases.jsonl; kinds: mini, "
        "biomedparse, npz, folders, nifti, coco, instances, dicomseg, phantoms, mecovqa, vqa-rad, slake, pathvqa",
    )
    p.add_argument("--out", metavar="DIR", required=True, help="folder of the corpus")
    p.add_argument("--num-phantoms", metavar="N", type=at_least(0), default=0, help="add N procedural images")
    p.add_argument("--preset", metavar="NAME", default="ibis", help="ibis, paper, component, human ... (%(default)s)")
    p.add_argument("--config", metavar="FILE", help="YAML file with further settings (docs/data-engine.md lists them)")
    p.add_argument("--splits", metavar="NAME", nargs="+", help="only samples of these splits, for example train")
    p.add_argument("--seed", metavar="K", type=at_least(0), help="seed of all draws (default: 0)")
    p.add_argument("--segmenter", metavar="S", help=f"{_SEGMENTERS} (default: litemedsam)")
    p.add_argument("--on-fault", choices=["skip", "fail"], help="what an item that cannot be used does (default: skip)")
    p.add_argument("--audit", choices=["fail", "report"], help="what a leak between splits does (default: fail)")
    p.add_argument("--allow-group", metavar="G", action="append", help="SOURCE or SOURCE/GROUP that splits may share")
    p.add_argument("--decisions", metavar="FILE", help="what a person decided (default: DIR/decisions.jsonl)")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    g = p.add_argument_group("who writes the thoughts")
    g.add_argument("--teacher", metavar="T", help="template, terse or chat:MODEL (default: template)")
    g.add_argument("--base-url", metavar="URL", help="address of an OpenAI-compatible server, for chat:MODEL")
    g.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the server's key")
    g.add_argument("--max-cost", metavar="C", type=amount, help="most that a chat teacher may cost; needs the prices")
    g.add_argument("--price-prompt", metavar="C", type=amount, help="price of a million prompt tokens")
    g.add_argument("--price-completion", metavar="C", type=amount, help="price of a million completion tokens")
    g = p.add_argument_group("who works")
    g.add_argument("--executor", choices=["processes", "ray"], default="processes", help="(default: %(default)s)")
    g.add_argument("--processes", metavar="N", type=at_least(1), help="workers at a time (default: one a core)")
    g.add_argument("--ray-address", metavar="A", help="address of a Ray cluster (default: RAY_ADDRESS, or one here)")
    g.add_argument("--device", metavar="D", type=device, default="cpu", help=f"of the segmenter: {_DEVICES}")


def _replay(p: argparse.ArgumentParser) -> None:
    p.description = "Carry out a recorded episode's actions again and say whether every mask comes out the same."
    p.add_argument("episode", metavar="EPISODE.json")
    p.add_argument("--image", metavar="IMAGE", help="the image (default: the one in the record, else its file near by)")
    p.add_argument("--segmenter", metavar="S", help="another segmenter than the recorded one")
    p.add_argument("--device", metavar="D", type=device, default="cpu", help=_DEVICES)
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _doctor(p: argparse.ArgumentParser) -> None:
    p.description = "Say what is installed, which weights and devices are found."
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _players(p: argparse.ArgumentParser) -> None:
    g = p.add_argument_group("who plays with what")
    g.add_argument("--policy", metavar="P", default="nano", help=f"{_POLICIES} (default: %(default)s)")
    g.add_argument("--segmenter", metavar="S", default="litemedsam", help=f"{_SEGMENTERS} (default: %(default)s)")
    g.add_argument("--max-steps", metavar="N", type=at_least(1), default=8, help="most actions (%(default)s)")
    g.add_argument("--seed", metavar="K", type=at_least(0), default=0, help="seed of all sampling (%(default)s)")
    g.add_argument("--max-seconds", metavar="T", type=seconds, help="wall-clock budget of a run")
    g.add_argument("--device", metavar="D", type=device, default="cpu", help=_DEVICES)
    g.add_argument("--system-prompt", metavar="FILE", help="the prompt that a vlm, api or nano policy was trained with")
    g.add_argument(
        "--dialect",
        metavar="NAME",
        help="action grammar: plain, json or ibis-paper (default: the prompt's, else plain)",
    )
    g.add_argument("--base-url", metavar="URL", help="address of an OpenAI-compatible server, for api:MODEL")
    g.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the server's key")
    g.add_argument(
        "--prefill",
        action="store_true",
        help="the server of api:MODEL goes on with a reply that was begun for it, as vLLM does (runs without thoughts)",
    )


def _writing(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--format",
        metavar="F",
        help="nifti, nrrd, metaimage, tiff, dicom-seg, rtstruct, coco, geojson or png, several as F,F (default: the "
        "source's own; for DICOM dicom-seg,nifti)",
    )


def _reading(p: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    g = p.add_argument_group("how to read the study")
    g.add_argument(
        "--window",
        metavar="W",
        help="lung, soft-tissue, brain, bone, percentile, header or LOW,HIGH; three as A+B+C: red, green, blue",
    )
    g.add_argument("--modality", metavar="NAME", help="CT, MRI ..., where the file does not say")
    return g
