"""Lambda's service model: which operation a request is for, and whether its parameters are valid.

Rule 1: the model is data. It was taken from the one that AWS's clients have (API version
2015-03-31, botocore 1.44.8), and tests compare paths, members, bounds and patterns with it.

Rule 2: a message is AWS's, byte for byte, if an answer of AWS is recorded.

Rule 3: validation takes time in proportion to the request, and its error is short. Each pattern
matches in linear time, structures of a list are checked until there are 50 errors, and a message
shows the first 512 characters of a value (`constraints`).

The names of shapes are the model's (String, Integer, Double, Boolean, Timestamp, Blob, Structure;
a long is an Integer of 64 bits), except three that mean something else in Python: an enum is
`OneOf`, since `Enum` is a base class of the standard library, and a list and a map are `ListOf` and
`MapOf`, since `List` and `Map` read like types of values.

Reading order:

- operations   methods and paths: the operation of a request
- shapes       what a value may be: types, bounds, patterns
- inputs       the parameters of each operation, and where in a request each of them is
- constraints  does a value keep to its shape, and the message if not
- validate     a request in, its parameters out
"""
