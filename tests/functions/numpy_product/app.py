"""Multiplies matrices with numpy: the library most functions outgrow 128 MB with, in 128 MB."""

import numpy


def handler(event, context):
    """Return `left` times `right`, or the trace of the product of two n x n matrices.

    With `n` the matrices are i + j and i - j, so that the trace has a closed form.
    """
    if "n" in event:
        rows, columns = numpy.indices((event["n"], event["n"]), dtype=numpy.float64)
        product = (rows + columns) @ (rows - columns)
        return {"trace": float(numpy.trace(product)), "version": numpy.__version__}
    product = numpy.array(event["left"]) @ numpy.array(event["right"])
    return {"product": product.tolist(), "version": numpy.__version__}
