"""The verbs people type: demo, search, ui, export, translate, evaluate, fid."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import search_spaces
from thermal_search.errors import SearchError, ThermalSearchError
from thermal_search.storage import Location

DEFAULT_WAIT_MINUTES = 15.0
"""For machines of a cluster: what a cloud takes to start one and to install everything on it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb. Bad input ends with one sentence and exit code 1."""
    run_verb(_parser(), arguments)


def run_verb(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> None:
    """Parses, calls the verb's `run`, and turns errors meant for people into one sentence."""
    try:
        args = parser.parse_args(arguments)
        args.run(args)
    except ThermalSearchError as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has left (`| head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def add_search_flags(parser: argparse.ArgumentParser, default_address: str) -> None:
    """The flags of a search, the same for `thermal-search search` and cluster/search.py."""
    parser.add_argument(
        "--data",
        type=Location.of,
        help="a folder written by process.py, or its address in a bucket",
    )
    parser.add_argument(
        "--output",
        type=Location.of,
        required=True,
        help="an empty folder for the search; may be in a bucket",
    )
    parser.add_argument(
        "--architectures", type=_names, help="which to search, with commas, or all; default: all"
    )
    parser.add_argument("--trials", type=int, help="how many to run; default: 60")
    parser.add_argument(
        "--images", type=int, help="a trial's full budget, in images shown; default: 200000"
    )
    parser.add_argument(
        "--evaluate-every", type=int, help="images between two evaluations; default: a tenth"
    )
    parser.add_argument(
        "--slots", type=int, help="trials at once; default: as many as the machines hold"
    )
    parser.add_argument("--workers", type=int, help="workers that share a trial; default: 1")
    parser.add_argument(
        "--gpus-per-worker", type=float, help="whole or a fraction; default: 1 where there are any"
    )
    parser.add_argument(
        "--placement",
        choices=["pack", "spread"],
        help="a trial's workers all on one machine, or on as many as there are; default: on one "
        "machine if it holds them",
    )
    parser.add_argument(
        "--features",
        help="what the Frechet distance is measured on: inception, which makes it FID, "
        "efficientnet-lite0, or an encoder's file (.pt2, .onnx); default: inception",
    )
    parser.add_argument(
        "--features-precision", choices=["fp32", "bf16"], help="of that network; default: fp32"
    )
    parser.add_argument(
        "--inception-weights", type=Path, help="pytorch-fid's weights file, if not to be downloaded"
    )
    parser.add_argument(
        "--lpips-weights", type=Path, help="torchvision's AlexNet or VGG-16: measures LPIPS too"
    )
    parser.add_argument(
        "--objective",
        help="what is minimized: fid (the default), kid, a sum such as fid+10*lpips, or "
        "pareto:fid,l1",
    )
    parser.add_argument(
        "--average-last",
        type=int,
        help="a trial is worth the mean of so many of its last evaluations; default: 3, fewer "
        "where a trial has fewer than 9",
    )
    parser.add_argument(
        "--finalists",
        type=int,
        help="how many of the best are trained again with further seeds, and judged on the test "
        "split; default: 3, none in a search of fewer than 20 trials",
    )
    parser.add_argument("--seeds", type=int, help="further seeds of each finalist; default: 2")
    parser.add_argument("--seed", type=int, help="of the sampler and of every trial; default: 0")
    parser.add_argument(
        "--precision",
        choices=["auto", "bf16", "fp32"],
        help="of the forward pass in training; default: bf16 where the hardware has it",
    )
    parser.add_argument(
        "--reduction", type=float, help="one in so many trials survives a rung; default: 3"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the search in --output")
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS", default_address),
        help="the Ray cluster to join, or local; default: %(default)s",
    )
    parser.add_argument(
        "--wait-for-nodes",
        type=int,
        default=1,
        help="machines to wait for, the head included; default: %(default)s",
    )
    parser.add_argument(
        "--wait-minutes",
        type=float,
        help="how long to wait for machines, and for those that --slots needs; default: 15 on a "
        "cluster",
    )
    parser.set_defaults(run=run_search)


def run_search(args: argparse.Namespace) -> None:
    """`thermal-search search` and cluster/search.py."""
    # Imported here: torch, Ray and MLflow take seconds, and `--help` should not.
    from thermal_search.tuning.nodes import NodeWait
    from thermal_search.tuning.request import plan_from_flags
    from thermal_search.tuning.search import search
    from thermal_search.tuning.text_report import describe

    plan = plan_from_flags(vars(args), resume=args.resume)
    minutes = args.wait_minutes
    if minutes is None:
        minutes = 0.0 if args.address == "local" else DEFAULT_WAIT_MINUTES
    patience = NodeWait(args.wait_for_nodes, minutes)
    record = search(plan, address=args.address, resume=args.resume, wait=patience)
    print(describe(record))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thermal-search",
        description="Finds the best GAN for turning RGB images into thermal-infrared ones.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    demo = _verb(verbs, "demo", "everything, small, on images it draws itself", _demo)
    demo.add_argument("--output", type=Path, default=Path("demo"), help="default: %(default)s")

    search = verbs.add_parser("search", help="search for the best generator")
    add_search_flags(search, default_address="local")

    ui = _verb(verbs, "ui", "open the MLflow UI of a search", _ui)
    ui.add_argument("output", type=Location.of, help="the --output folder of a search")
    ui.add_argument("--port", type=int, default=5000, help="default: %(default)s")
    ui.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine only")

    export = _verb(verbs, "export", "write the best generator of a search", _export)
    export.add_argument("output", type=Location.of, help="the --output folder of a search")
    export.add_argument("--to", type=Location.of, help="default: the folder generator in it")

    translate = _verb(verbs, "translate", "turn a folder of RGB images thermal", _translate)
    translate.add_argument("model", type=Location.of, help="a folder written by export")
    translate.add_argument("source", type=Path, help="a folder of RGB images")
    translate.add_argument("target", type=Path, help="where the thermal images go")
    translate.add_argument(
        "--square", action="store_true", help="the generator's own size, not the RGB image's"
    )
    translate.add_argument(
        "--celsius",
        action="store_true",
        help="16-bit PNG of 0.01 K a count, of a generator trained on 16-bit thermal",
    )
    translate.add_argument("--seed", type=int, default=0, help="of the latents; default: 0")

    fid = _verb(verbs, "fid", "the Frechet distance between two folders of images", _fid)
    fid.add_argument("first", type=Path, metavar="FOLDER", help="images, or their .npz statistics")
    fid.add_argument("second", type=Path, metavar="FOLDER", help="the other ones")
    _add_features_flags(fid)
    fid.add_argument(
        "--save", type=Path, metavar="FILE.npz", help="keep the first folder's statistics"
    )

    evaluate = _verb(verbs, "evaluate", "judge an exported generator", _evaluate)
    evaluate.add_argument("model", type=Location.of, help="a folder written by export")
    evaluate.add_argument(
        "--data", type=Location.of, required=True, help="a folder written by process.py"
    )
    evaluate.add_argument("--split", choices=["val", "test"], default="val", help="default: val")
    evaluate.add_argument("--workers", type=int, default=1, help="default: %(default)s")
    _add_features_flags(evaluate)
    evaluate.add_argument(
        "--lpips-weights", type=Path, help="torchvision's AlexNet or VGG-16: measures LPIPS too"
    )
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go as well")
    return parser


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",  # pyright: ignore[reportPrivateUsage] - argparse has no public name for it
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    return parser


def _demo(args: argparse.Namespace) -> None:
    from thermal_search.demo.tour import tour

    tour(args.output)


def _ui(args: argparse.Namespace) -> None:
    from thermal_search.tracking.server import serve_ui

    serve_ui(args.output, host=args.host, port=args.port)


def _export(args: argparse.Namespace) -> None:
    from thermal_search.export import export

    folder = export(args.output, args.to)
    print(f"The best generator is in {folder}: the same images as the trained one, checked.")


def _translate(args: argparse.Namespace) -> None:
    from thermal_search.translation import translate_folder

    done = translate_folder(
        args.model,
        args.source,
        args.target,
        square=args.square,
        celsius=args.celsius,
        seed=args.seed,
    )
    for path, reason in done.left_out:
        print(f"Left out {path.name}: {reason}", file=sys.stderr)
    print(f"{len(done.written)} thermal images are in {args.target}.")


def _evaluate(args: argparse.Namespace) -> None:
    import json

    from thermal_search.evaluation.command import Request, describe, evaluate

    names = ("model", "data", "split", "workers", "features", "inception_weights")
    names += ("features_precision", "lpips_weights")
    found = evaluate(Request(**{name: getattr(args, name) for name in names}))
    describe(found)
    if args.json:
        try:
            Location.of(args.json).write_text(json.dumps(found, indent=2) + "\n")
        except OSError as error:
            raise SearchError(
                f"--json {args.json} cannot be written ({error.strerror or error}): choose another "
                "place; the numbers are above."
            ) from None


def _fid(args: argparse.Namespace) -> None:
    from thermal_search.evaluation.fid import distance_between

    metric, distance = distance_between(
        args.first,
        args.second,
        features=args.features,
        inception_weights=args.inception_weights,
        precision=args.features_precision,
        save=args.save,
    )
    coarse = (
        "" if args.features_precision == "fp32" else f" (features in {args.features_precision})"
    )
    print(f"{metric} {distance:.6f}{coarse}")


def _add_features_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        default="inception",
        help="inception, efficientnet-lite0, or an encoder's file (.pt2, .onnx); "
        "default: %(default)s",
    )
    parser.add_argument(
        "--inception-weights", type=Path, help="pytorch-fid's weights file, if not to be downloaded"
    )
    parser.add_argument(
        "--features-precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="of that network; default: %(default)s",
    )


def _names(text: str) -> tuple[str, ...]:
    if text.strip() == "all":
        return tuple(search_spaces.names())
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    main()
