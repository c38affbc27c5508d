"""Items, as a FastAPI application behind Mangum: API Gateway v2 and function URL events."""

from fastapi import FastAPI
from mangum import Mangum
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    """What a client posts."""

    name: str
    price: float


@app.get("/items/{number}")
async def read_item(number: int, detail: bool = False):
    """Return one item."""
    return {"number": number, "detail": detail}


@app.post("/items", status_code=201)
def create_item(item: Item):
    """Return the item with what it costs including tax; runs in a thread of anyio's."""
    return {"name": item.name, "gross": round(item.price * 1.2, 2)}


handler = Mangum(app)
