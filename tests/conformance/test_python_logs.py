"""The log of a Python function: Lambda's lines, and those of `logging`."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from contract import DIVIDE, STAMP, printed

if TYPE_CHECKING:
    from contract import Ask


def test_start_end_and_report_are_lambdas_lines(ask: Ask) -> None:
    """Byte for byte, with tabs; Init Duration stands in the first report only."""
    source = """
        def handler(event, context):
            print("hello", event)
        """
    cold, warm = ask(source, 1, 2, memory_size=256)
    for number, response in enumerate((cold, warm), 1):
        report, request_id = response.report, response.request_id
        line = (
            f"REPORT RequestId: {request_id}\t"
            f"Duration: {report.duration_ms:.2f} ms\t"
            f"Billed Duration: {report.billed_duration_ms} ms\t"
            f"Memory Size: 256 MB\t"
            f"Max Memory Used: {report.max_memory_used_mb} MB\t"
        )
        if report.init_duration_ms is not None:
            line += f"Init Duration: {report.init_duration_ms:.2f} ms\t"
        assert response.log == (
            f"START RequestId: {request_id} Version: $LATEST\n"
            f"hello {number}\n"
            f"END RequestId: {request_id}\n"
            f"{line}\n"
        )
    assert cold.report.init_duration_ms is not None
    assert warm.report.init_duration_ms is None
    assert (cold.report.cold, warm.report.cold) == (True, False)
    assert warm.report.billed_duration_ms == math.ceil(warm.report.duration_ms)
    together = cold.report.duration_ms + cold.report.init_duration_ms
    assert cold.report.billed_duration_ms == math.ceil(together)
    assert 0 < warm.report.max_memory_used_mb < 256


def test_what_the_init_phase_prints_precedes_start(ask: Ask) -> None:
    """Lines of the module's top level are in the first log, and only there."""
    source = """
        print("loading")

        def handler(event, context):
            pass
        """
    cold, warm = ask(source, None, None)
    assert cold.log.startswith("loading\nSTART RequestId: ")
    assert warm.log.startswith("START RequestId: ")


def test_logging_prints_lambdas_lines(ask: Ask, runtime: str) -> None:
    """Level, time in UTC with milliseconds, request id and message, parted by tabs."""
    source = """
        import logging

        logging.getLogger().setLevel("INFO")
        logging.info("loading")

        def handler(event, context):
            logging.getLogger("shop").info("hello %s", event)
            logging.debug("not this")
        """
    cold, warm = ask(source, "world", "moon", runtime=runtime)
    assert re.match(rf"\[INFO\]\t{STAMP}\t\tloading\n", cold.log)
    for response, name in ((cold, "world"), (warm, "moon")):
        assert re.fullmatch(
            rf"\[INFO\]\t{STAMP}\t{response.request_id}\thello {name}\n", printed(response)
        )


def test_the_level_of_the_log_is_the_environments(ask: Ask) -> None:
    """AWS_LAMBDA_LOG_LEVEL sets the root logger's level; without it, it is WARNING."""
    source = """
        import logging

        def handler(event, context):
            for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
                logging.log(getattr(logging, level), "said")
        """
    heard = {}
    for level in ("", "TRACE", "debug", "INFO", "ERROR"):
        environment = {"AWS_LAMBDA_LOG_LEVEL": level} if level else {}
        [response] = ask(source, None, environment=environment)
        heard[level] = re.findall(r"^\[(\w+)\]", response.log, re.MULTILINE)
    everything = ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert heard == {
        "": ["WARNING", "ERROR"],
        "TRACE": everything,
        "debug": everything,
        "INFO": ["INFO", "WARNING", "ERROR"],
        "ERROR": ["ERROR"],
    }


def test_a_log_in_json_is_one_object_per_record(ask: Ask) -> None:
    """AWS_LAMBDA_LOG_FORMAT=JSON: time, level, message, logger, request id, and extras."""
    source = """
        import logging

        log = logging.getLogger("shop")

        def handler(event, context):
            log.info("order %d", 7, extra={"customer": "Ada"})
            log.info({"structured": True})
            try:
                1 / 0
            except ZeroDivisionError:
                log.exception("divided")
        """
    [response] = ask(
        source,
        None,
        environment={"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"},
    )
    order, structured, divided = map(json.loads, printed(response).splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", order.pop("timestamp"))
    assert order == {
        "level": "INFO",
        "message": "order 7",
        "logger": "shop",
        "requestId": response.request_id,
        "customer": "Ada",
    }
    assert structured["message"] == {"structured": True}
    assert divided["level"] == "ERROR"
    assert divided["errorType"] == "ZeroDivisionError"
    assert divided["errorMessage"] == "division by zero"
    assert "1 / 0" in divided["stackTrace"][0]
    assert re.fullmatch(r".+/app\.py:handler:\d+", divided["location"])


def test_a_failure_in_json_is_one_object(ask: Ask) -> None:
    """With AWS_LAMBDA_LOG_FORMAT=JSON also a failure's own line is JSON."""
    [response] = ask(DIVIDE, None, environment={"AWS_LAMBDA_LOG_FORMAT": "JSON"})
    line = json.loads(printed(response))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line.pop("timestamp"))
    assert line == {"level": "ERROR", **json.loads(response.body)}


def test_a_record_with_a_trace_ends_its_line(ask: Ask) -> None:
    """logging.exception's trace does not run into the record after it."""
    source = """
        import logging

        def handler(event, context):
            try:
                1 / 0
            except ZeroDivisionError:
                logging.exception("divided")
            logging.error("afterwards")
        """
    [response] = ask(source, None)
    assert re.search(r"^ZeroDivisionError: division by zero$", response.log, re.MULTILINE)
    assert re.search(r"^\[ERROR\]\t\S+\t\S+\tafterwards$", response.log, re.MULTILINE)


def test_context_log_prints_as_it_is(ask: Ask) -> None:
    """context.log adds no newline."""
    source = r"""
        def handler(event, context):
            context.log("one, ")
            context.log("two\n")
            context.log(3)
        """
    [response] = ask(source, None)
    assert printed(response) == "one, two\n3\n"
