"""The course at gym scale: stages and rewards held against each other on phantoms, with intervals, on two cores."""
