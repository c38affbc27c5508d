"""Orders, with Powertools for AWS Lambda: Logger, Metrics and the HTTP API resolver in one app."""

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger(service="orders")
metrics = Metrics(namespace="Shop", service="orders")
app = APIGatewayHttpResolver()

ORDERS = {"1": {"id": "1", "item": "lamp"}}


@app.get("/orders/<order_id>")
def get_order(order_id):
    """Return one order."""
    logger.info("looking for an order", extra={"order_id": order_id})
    if order_id not in ORDERS:
        raise NotFoundError(f"no order {order_id}")
    metrics.add_metric(name="OrdersRead", unit=MetricUnit.Count, value=1)
    return ORDERS[order_id]


@app.post("/orders")
def create_order():
    """Return the order in the body as it would be stored."""
    metrics.add_metric(name="OrdersCreated", unit=MetricUnit.Count, value=1)
    return {"id": "2", **app.current_event.json_body}, 201


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event, context):
    """Answer one HTTP API event, payload version 2.0."""
    return app.resolve(event, context)
