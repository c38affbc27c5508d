"""Deploy a function to `minilambda serve` with boto3, as one does to AWS.

    pip install PATH/TO/CLONE boto3         # miniλ is installed from a clone
    minilambda serve --state ./state &      # says: listening on http://127.0.0.1:9001
    export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any
    AWS_ENDPOINT_URL=http://127.0.0.1:9001 python deploy.py

boto3 does not send a request without a key: any key will do, but there must be one. Without
AWS_ENDPOINT_URL the same program would deploy to AWS.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import boto3

HANDLERS = Path(__file__).parent / "handlers"
# The endpoint and the key come from AWS_* variables. Without a keys file the server takes any key.
client = boto3.client("lambda", region_name="us-east-1")

# A deployment package is a .zip of the directory.
package = io.BytesIO()
with zipfile.ZipFile(package, "w") as archive:
    for path in HANDLERS.glob("*.py"):
        archive.write(path, path.name)

client.create_function(
    FunctionName="price",
    Runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
    Handler="orders.price",
    Role="arn:aws:iam::000000000000:role/any",
    Code={"ZipFile": package.getvalue()},
)
# As on AWS: it is Pending until its code is there, and cannot be invoked before that.
client.get_waiter("function_active_v2").wait(FunctionName="price")

# A version does not change any more, and an alias is a name for one.
version = client.publish_version(FunctionName="price")["Version"]
client.create_alias(FunctionName="price", Name="live", FunctionVersion=version)

order = json.dumps({"order": 1, "items": ["tea", "cake"]})
answer = client.invoke(FunctionName="price", Qualifier="live", Payload=order)
print("version", answer["ExecutedVersion"], "answers", json.load(answer["Payload"]))

client.delete_function(FunctionName="price")
