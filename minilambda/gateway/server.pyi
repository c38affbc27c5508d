from miniλ.gateway.server import *
