"""The functions of the examples: plain handlers, as they would be uploaded to AWS Lambda."""

PRICES = {"tea": 3.5, "cake": 4.25}


def price(event, context):
    """Return what an order costs; an item that is not sold is the function's failure."""
    total = sum(PRICES[item] for item in event["items"])
    print("order", event["order"], "costs", total)
    return {"order": event["order"], "total": total}


def archive(event, context):
    """Take the record of an asynchronous event that is over: a destination is called with it."""
    print("archived", event["requestContext"]["condition"], event["requestPayload"]["order"])
