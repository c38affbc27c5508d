"""Logs at every level, without configuring logging: the runtime has done that."""

import logging

logger = logging.getLogger("shop.orders")
logging.getLogger("shop.quiet").setLevel(logging.CRITICAL)


def handler(event, context):
    """Log once per level; `level` sets the root logger's, as functions do on Lambda."""
    if "level" in event:
        logging.getLogger().setLevel(event["level"])
    logger.debug("a detail of %s", "order 7")
    logger.info("order %d is here", 7)
    logger.warning("order 7 is late", extra={"order": 7})
    logger.error("order 7 is lost")
    logging.getLogger("shop.quiet").error("nobody hears this")
    try:
        {}["order 7"]
    except KeyError:
        logger.exception("no such order")
    logging.critical("the shop is closed")
    return {"level": logging.getLevelName(logging.getLogger().level)}
