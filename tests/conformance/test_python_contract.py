"""The Python contract as a client sees it: context, environment, what stays in a worker.

Sources: AWS's developer guide and, where that is silent, AWS's own client for Python
(awslambdaric), here and in the other files of the contract.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any

from contract import failure_of

import miniλ

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from contract import Ask

    from miniλ import Response

    Deploy = Callable[..., Path]


# Context


def test_the_context_tells_what_is_running(ask: Ask, runtime: str) -> None:
    """Names, limits and ids are strings, the memory size too; the time left counts down."""
    source = """
        def handler(event, context):
            left = [context.get_remaining_time_in_millis() for _ in range(3)]
            return {
                "name": context.function_name,
                "version": context.function_version,
                "arn": context.invoked_function_arn,
                "memory": context.memory_limit_in_mb,
                "id": context.aws_request_id,
                "group": context.log_group_name,
                "stream": context.log_stream_name,
                "identity": [
                    context.identity.cognito_identity_id,
                    context.identity.cognito_identity_pool_id,
                ],
                "client_context": context.client_context,
                "tenant": context.tenant_id,
                "left": left,
            }
        """
    responses = ask(source, None, None, memory_size=192, timeout=7, runtime=runtime)
    for response in responses:
        answer = response.payload
        assert answer["name"] == "asked"
        assert answer["version"] == "$LATEST"
        assert re.fullmatch(r"arn:aws:lambda:[a-z0-9-]+:\d{12}:function:asked", answer["arn"])
        assert answer["memory"] == "192"
        assert answer["id"] == response.request_id
        assert answer["group"] == "/aws/lambda/asked"
        assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", answer["stream"])
        assert answer["identity"] == [None, None]
        assert answer["client_context"] is None
        assert answer["tenant"] is None
        left = answer["left"]
        assert 7000 >= left[0] >= left[1] >= left[2] > 0
    ids = [response.request_id for response in responses]
    assert len(set(ids)) == 2
    uuid4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(uuid4, request_id) for request_id in ids)


def test_the_context_carries_what_the_caller_says(ask: Ask) -> None:
    """client_context and identity are objects with the attributes a mobile SDK fills."""
    source = """
        import os

        def handler(event, context):
            client = context.client_context
            return {
                "client": [
                    client.client.installation_id,
                    client.client.app_title,
                    client.client.app_version_name,
                    client.client.app_version_code,
                    client.client.app_package_name,
                ],
                "custom": client.custom,
                "env": client.env,
                "identity": [
                    context.identity.cognito_identity_id,
                    context.identity.cognito_identity_pool_id,
                ],
                "trace": os.environ["_X_AMZN_TRACE_ID"],
            }
        """
    say = {
        "client_context": {
            "client": {
                "installation_id": "i-1",
                "app_title": "Shop",
                "app_version_name": "1.2",
                "app_version_code": "12",
                "app_package_name": "example.shop",
            },
            "custom": {"color": "blue"},
            "env": {"locale": "de"},
        },
        "identity": {"cognitoIdentityId": "id-1", "cognitoIdentityPoolId": "pool-1"},
        "trace_id": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0",
    }
    [response] = ask(source, None, say=say)
    assert response.payload == {
        "client": ["i-1", "Shop", "1.2", "12", "example.shop"],
        "custom": {"color": "blue"},
        "env": {"locale": "de"},
        "identity": ["id-1", "pool-1"],
        "trace": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0",
    }


def test_a_client_context_may_say_little(deploy: Deploy) -> None:
    """Options that the caller left out are None, also after an invocation that had them."""
    source = """
        def handler(event, context):
            client = context.client_context
            return None if client is None else [client.client, client.custom, client.env]
        """

    async def scenario(code: Path) -> list[Any]:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("asked", code, "app.handler")
            little = await supervisor.invoke("asked", client_context={"custom": {"a": "b"}})
            nothing = await supervisor.invoke("asked")
            return [little.payload, nothing.payload]

    assert asyncio.run(scenario(deploy(source))) == [[None, {"a": "b"}, None], None]


# Environment


def test_the_environment_is_lambdas(ask: Ask, runtime: str) -> None:
    """Every variable of the developer guide that applies here, with its value."""
    source = """
        import os

        def handler(event, context):
            return dict(os.environ)
        """
    [response] = ask(source, None, memory_size=256, runtime=runtime, environment={"COLOR": "blue"})
    variables = response.payload
    expected = {
        "_HANDLER": "app.handler",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{runtime}",
        "AWS_LAMBDA_FUNCTION_NAME": "asked",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/asked",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "LANG": "en_US.UTF-8",
        "LC_CTYPE": "C.UTF-8",
        "TZ": ":UTC",
        "COLOR": "blue",
    }
    assert {name: variables.get(name) for name in expected} == expected
    stream = r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}"
    assert re.fullmatch(stream, variables["AWS_LAMBDA_LOG_STREAM_NAME"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert variables[name]
    for name in ("LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "TMPDIR"):
        assert os.path.isabs(variables[name])
    assert "/usr/bin" in variables["PATH"].split(":")
    assert variables["LAMBDA_TASK_ROOT"] in variables["LD_LIBRARY_PATH"].split(":")
    # There is no runtime API to call: frames come by pipe.
    assert "AWS_LAMBDA_RUNTIME_API" not in variables


def test_the_supervisors_environment_is_not_the_functions(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable of the embedding app's environment reaches a function, AWS keys included."""
    monkeypatch.setenv("APP_DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("PYTHONPATH", "hunter2")
    source = """
        import os, sys

        def handler(event, context):
            with open("/proc/self/environ", "rb") as file:
                return [repr(dict(os.environ)), repr(sys.path), file.read().decode()]
        """
    [response] = ask(source, None)
    assert "hunter2" not in response.body.decode()


def test_the_code_directory_is_where_a_function_lives(ask: Ask, runtime: str) -> None:
    """sys.path[0], LAMBDA_TASK_ROOT and the working directory are the code directory."""
    source = """
        import os, sys

        def handler(event, context):
            return [sys.path[0], os.environ["LAMBDA_TASK_ROOT"], os.getcwd(), __file__]
        """
    [response] = ask(source, None, runtime=runtime)
    first, root, here, file = response.payload
    assert first == root
    assert os.path.realpath(root) == here
    assert file == f"{root}/app.py"


def test_the_supervisors_packages_are_not_the_functions(ask: Ask) -> None:
    """A function imports the standard library and its own packages, and none of miniλ's."""
    source = """
        import importlib.util

        def handler(event, context):
            return [importlib.util.find_spec(name) is not None for name in event]
        """
    [response] = ask(source, ["json", "app", "msgspec", "aiohttp", "bootstrap"])
    assert response.payload == [True, True, False, False, False]


def test_a_function_gets_its_own_copy_of_any_name(ask: Ask, deploy: Deploy) -> None:
    """Modules with names of miniλ's, which the zygote has loaded, are the function's own."""
    deploy("OWNER = 'function'", "miniλ/__init__.py")
    deploy("OWNER = 'function'", "bootstrap.py")
    code = deploy("""
        import bootstrap, miniλ

        def handler(event, context):
            return [vars(bootstrap).get("OWNER"), vars(miniλ).get("OWNER")]
        """)
    [response] = ask(code, None)
    assert response.payload == ["function", "function"]


def test_a_handler_may_live_in_a_folder(ask: Ask, deploy: Deploy) -> None:
    """pkg/mod.handler and pkg.mod.handler name the same function, as on Lambda."""
    code = deploy("def handler(event, context):\n    return __name__\n", "pkg/mod.py")
    for handler in ("pkg/mod.handler", "pkg.mod.handler"):
        [response] = ask(code, None, handler=handler)
        assert response.payload == "pkg.mod"


# What stays and what does not


def test_globals_stay_while_the_worker_lives(ask: Ask, runtime: str) -> None:
    """A counter counts over invocations, and starts anew in the next worker."""
    source = """
        import os

        count = 0

        def handler(event, context):
            global count
            count += 1
            if event == "leave":
                os._exit(0)
            return count
        """
    one, two, gone, anew = ask(source, "", "", "leave", "", runtime=runtime)
    assert (one.payload, two.payload) == (1, 2)
    assert gone.is_failure
    assert anew.payload == 1


def test_tmp_outlives_a_timeout_and_globals_do_not(ask: Ask) -> None:
    """After a timeout the files in /tmp are there for the next worker, as on Lambda."""
    source = """
        import os, signal, tempfile

        state = "fresh"

        def handler(event, context):
            global state
            path = os.path.join(tempfile.gettempdir(), "kept")
            if event:
                state = "used"
                open(path, "w").close()
                signal.pause()
            return [state, os.path.exists(path)]
        """
    late, after = ask(source, 1, 0, timeout=1)
    assert failure_of(late).error_type == "Sandbox.Timedout"
    assert after.payload == ["fresh", True]


def test_two_workers_draw_different_random_numbers(deploy: Deploy, tmp_path: Path) -> None:
    """Workers are forks of one process, but not of one random state."""
    source = """
        import os, random, tempfile, uuid

        at_import = random.random()

        def handler(event, context):
            # Opening a FIFO waits for the other end, which only another worker can open.
            with open(event["meet"], event["mode"]):
                name = tempfile.mktemp(dir="/")
                return [at_import, random.random(), str(uuid.uuid4()), name, os.getpid()]
        """
    code = deploy(source)
    meet = str(tmp_path / "meet")
    os.mkfifo(meet)

    async def scenario() -> list[Response]:
        # Both see a FIFO of the host's: nothing may hide it.
        settings = miniλ.Settings(without="namespaces,landlock")
        async with miniλ.Supervisor(settings=settings) as supervisor:
            await supervisor.create_function("draw", code, "app.handler", timeout=10)
            events = [{"meet": meet, "mode": mode} for mode in ("r", "w")]
            return await asyncio.gather(
                *(supervisor.invoke("draw", event, wait=10) for event in events)
            )

    one, two = asyncio.run(scenario())
    assert one.report.worker_id != two.report.worker_id
    assert all(left != right for left, right in zip(one.payload, two.payload, strict=True))


def test_a_handler_that_closes_stdout_still_answers(ask: Ask) -> None:
    """A function that breaks its own output loses its log, and no more."""
    source = """
        import os, sys

        def handler(event, context):
            sys.stdout.close()
            os.close(2)
            if event:
                raise ValueError("unheard")
            return "well"
        """
    [response] = ask(source, 0)
    assert response.payload == "well"
    [response] = ask(source, 1)
    assert failure_of(response).error_type == "ValueError"
