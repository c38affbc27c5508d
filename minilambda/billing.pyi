from miniλ.billing import *
