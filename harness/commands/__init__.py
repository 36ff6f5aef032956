"""The commands, one file each: ``add`` declares the flags, ``execute`` does the work and imports what is heavy."""

# What ``harness --help`` says of each, in that order; a command's file is imported when it is called.
FILES = {
    "eval": "evaluate",
    "prepare": "prepare",
    "sweep": "sweep",
    "apply": "apply",
    "plugins": "list_plugins",
    "tasks": "list_tasks",
    "compare": "compare",
    "leaderboard": "leaderboard",
    "export": "export",
    "show": "show",
    "verify": "verify",
    "reproduce": "reproduce",
    "publish": "publish",
}
HELP = {
    "eval": "evaluate a model, or a method on a model, on tasks",
    "prepare": "fetch what a sweep or a run needs, and prove that it loads, for machines without the Hub",
    "sweep": "run many evaluations from one file, each once",
    "apply": "write the model a method makes, for use elsewhere",
    "plugins": "list plugins, or explain one",
    "tasks": "list tasks with the plugin they come from",
    "compare": "say which of two methods is better, by how much, and whether it is noise",
    "leaderboard": "render a folder of records to Markdown or HTML, or check it",
    "export": "write scores as CSV, JSON or Parquet, or a table for a paper as LaTeX",
    "show": "look at a run: what ran, results, costs, documents one by one",
    "verify": "check that records follow from their samples, and that nothing was edited",
    "reproduce": "run a record again on random documents, and compare",
    "publish": "send records to a leaderboard, the Hub, or another format",
}
