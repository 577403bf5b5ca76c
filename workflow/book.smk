# records and notebooks → pages → HTML: what `make book` builds. A page is executed again where its notebook, the code
# that it shows, or its records have changed. Nothing is trained but the few steps of the example.
#
#   snakemake -s workflow/book.smk --workflow-profile workflow/profiles/local

import json
import os
from pathlib import Path

from lossatlas.experiments import load_study
from lossatlas.experiments.study import page_notebook, published_studies

GENERATED = "book/generated"
LANGUAGES = sorted(path.stem for path in Path("book/answers").glob("*.yaml"))
STEPS = "python -m lossatlas.book"
# linear algebra takes one thread a page: pages are made beside each other
shell.prefix("export OMP_NUM_THREADS=1; ")
LOG = "runs/logs/page-{name}.log"


def code(*rooms):
    """The package's files whose change makes a page out of date."""
    kinds = (".py", ".yaml", ".json", ".csv")
    root = Path("src/lossatlas")
    return sorted(str(path) for room in rooms for path in (root / room).rglob("*") if path.suffix in kinds)


def sets_at_hand():
    """Names of the folders of data sets here: a page that shows their images is out of date when one comes or goes."""
    places = [Path("data/raw"), *(Path(place) for place in map(os.environ.get, ("LOSSATLAS_DATA", "LOSSATLAS_MIRROR")) if place)]
    return sorted({path.name for place in places if place.is_dir() for path in place.iterdir() if path.is_dir()})


def records(study):
    return f"results/{study.study}/study.json"


def records_read(study):
    """The records of a study, and of those whose places its predictions count too, as far as they are there."""
    found = [records(study), *(f"results/{name}/study.json" for name in study.also)]
    return [path for path in found if Path(path).is_file()]


def records_shown(name):
    """The records that a derivation shows beside its formulas: what studies have settled, and the scores of `begin`."""
    settled = sorted(map(str, Path("results").glob("*/verdicts.json"))) if name == "ledger" else []
    shows = "families" in Path("notebooks/derivations", f"{name}.ipynb").read_text(encoding="utf-8")
    return [*settled, *(["results/begin/study.json"] if shows else [])]


# name → (study, name or file): the published studies, and the one that the command names
studies = {study.study: (study, study.study) for study in published_studies()}
if config.get("study"):
    asked = load_study(config["study"])
    studies[asked.study] = (asked, config["study"])
shown = {name: found for name, found in studies.items() if Path(records(found[0])).is_file()}
absent = {name: found for name, found in studies.items() if name not in shown}

derivations = [path.stem for path in sorted(Path("notebooks/derivations").glob("*.ipynb"))]
# what a report reads first; without it the page names the command that makes it
measured = {
    "benchmark": ("results/bench/losses.csv", "make bench book"),
    "calibrate": ("results/thresholds/pixels.parquet", "lossatlas run thresholds && make book"),
    "symptoms": ("results/begin/curves.parquet", "lossatlas run begin && make book"),
    "statistics": (
        "results/statistics/coverage.csv",
        "python benchmarks/coverage.py --out results/statistics/coverage.csv && make book",
    ),
}
reports = [name for name, (table, _) in measured.items() if Path(table).is_file()]
unmeasured = [name for name in measured if name not in reports]
# the training notebook on a run of seconds
EXAMPLE = {
    "dataset_params": {"image_size": 32, "objects": 2, "foreground": 0.12, "distractors": 0, "train_size": 256,
                       "val_size": 64, "test_size": 64},
    "model_params": {"width": 8, "depth": 3},
    "loss": "dice",
    "seeds": [0, 1],
    "steps": 100,
    "batch_size": 8,
    "lr": 0.01,
}
pages = [
    *(f"{GENERATED}/{name}.ipynb" for name in [*derivations, *reports, "published", "datasets", "run_example"]),
    *(f"{GENERATED}/{name}.md" for name in [*unmeasured, "costs", "loop"]),
    *(f"{GENERATED}/studies/{name}.ipynb" for name in shown),
    *(f"{GENERATED}/studies/{name}.md" for name in absent),
    f"{GENERATED}/front/numbers.json",
]


wildcard_constraints:
    name="[a-z0-9_]+",


localrules:
    missing_study,
    missing_report,


rule html:
    input:
        pages,
        "book/_config.yml",
        "book/_toc.yml",
        "book/references.bib",
        [str(path) for path in Path("book").glob("*.md")],
        [str(path) for room in ("_ext", "_static") for path in Path("book", room).rglob("*.*") if path.suffix != ".pyc"],
        code("losses"),  # whose docstrings are a page
    output:
        # its parts come and go; of the rest Sphinx knows what is out of date
        touch("book/_build/built"),
    threads: workflow.cores
    shell:
        "{STEPS} html"


rule study_page:
    input:
        notebook=lambda wildcards: page_notebook(shown[wildcards.name][1]),
        records=lambda wildcards: records_read(shown[wildcards.name][0]),
        code=code("claims", "report", "statistics", "theory"),
    output:
        f"{GENERATED}/studies/{{name}}.ipynb",
    log:
        LOG,
    params:
        given=lambda wildcards: json.dumps({"study": wildcards.name, "records": f"results/{wildcards.name}"}),
    shell:
        "{STEPS} page {input.notebook:q} {output:q} {params.given:q} 2> {log:q}"


rule missing_study:
    output:
        f"{GENERATED}/studies/{{name}}.md",
    params:
        title=lambda wildcards: absent[wildcards.name][0].title or wildcards.name,
        make=lambda wildcards: f"make book STUDY={absent[wildcards.name][1]}",
    shell:
        "{STEPS} missing {output:q} {params.title:q} {params.make:q}"


rule derivation:
    input:
        notebook="notebooks/derivations/{name}.ipynb",
        code=[
            *code("losses", "metrics", "theory"),
            *(f"src/lossatlas/{file}" for file in ("claims/ledger.py", "claims/claims.yaml", "report/style.py")),
        ],
        records=lambda wildcards: records_shown(wildcards.name),
    output:
        f"{GENERATED}/{{name,{'|'.join(derivations)}}}.ipynb",
    log:
        LOG,
    shell:
        "{STEPS} page {input.notebook:q} {output:q} 2> {log:q}"


rule report:
    input:
        notebook="notebooks/reports/{name}.ipynb",
        code=code("report", "losses"),  # a benchmark says whether it is of these losses
        tables=lambda wildcards: [
            str(path) for path in Path(measured[wildcards.name][0]).parent.glob("*") if path.is_file()
        ],
    output:
        f"{GENERATED}/{{name,{'|'.join(measured)}}}.ipynb",
    log:
        LOG,
    shell:
        "{STEPS} page {input.notebook:q} {output:q} 2> {log:q}"


rule missing_report:
    output:
        f"{GENERATED}/{{name,{'|'.join(measured)}}}.md",
    params:
        make=lambda wildcards: measured[wildcards.name][1],
    shell:
        "{STEPS} missing {output:q} {wildcards.name:q} {params.make:q}"


rule published:
    input:
        notebook="notebooks/reports/published.ipynb",
        code=code("claims", "report", "statistics"),
        records="results/thresholds/study.json",
    output:
        f"{GENERATED}/published.ipynb",
    log:
        "runs/logs/page-published.log",
    shell:
        "{STEPS} page {input.notebook:q} {output:q} 2> {log:q}"


rule datasets:
    input:
        notebook="notebooks/reports/datasets.ipynb",
        code=code("data", "losses"),
    output:
        f"{GENERATED}/datasets.ipynb",
    log:
        "runs/logs/page-datasets.log",
    params:
        at_hand=sets_at_hand(),
    shell:
        "{STEPS} page {input.notebook:q} {output:q} 2> {log:q}"


rule example:
    input:
        notebook="notebooks/train.ipynb",
        code=["src/lossatlas/experiments/versions.py", "src/lossatlas/report/run.py"],
    output:
        f"{GENERATED}/run_example.ipynb",
    log:
        "runs/logs/page-example.log",
    params:
        given=json.dumps(EXAMPLE),
    shell:
        "{STEPS} page {input.notebook:q} {output:q} {params.given:q} 2> {log:q}"


rule costs:
    # the measured times of clusters, for the page that includes them
    input:
        [str(path) for path in Path("results/bench").rglob("*") if path.is_file()],
        [records(study) for study, _ in shown.values()],
        "src/lossatlas/report/costs.py",
        "src/lossatlas/report/loop.py",
    output:
        f"{GENERATED}/costs.md",
        f"{GENERATED}/loop.md",
    log:
        "runs/logs/page-costs.log",
    shell:
        "{STEPS} costs 2> {log:q}"


rule front:
    # numbers and figures of the front pages, and the ledger's answers in other languages
    input:
        [path for study, _ in shown.values() for path in records_read(study)],
        [str(path) for path in Path("results/look").glob("*.npz")],
        sorted(map(str, Path("results").glob("*/verdicts.json"))),
        [f"book/answers/{language}.yaml" for language in LANGUAGES],
        code("claims", "report", "theory"),
    output:
        f"{GENERATED}/front/numbers.json",
        [f"{GENERATED}/front/claims_{language}.md" for language in LANGUAGES],
    log:
        "runs/logs/page-front.log",
    params:
        at_hand=sets_at_hand(),
    shell:
        "{STEPS} front 2> {log:q}"
