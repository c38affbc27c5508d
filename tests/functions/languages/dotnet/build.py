"""Make a .NET program of a C# source: build.py SOURCE PROGRAM RESULT.

There is no SDK in the package indexes that tests install from, but there are its parts: Roslyn's
libraries in one package, a .NET Core 3.1 that runs them in another, and in a third a program that
is one file, with the runtime of .NET 10 in it. The source is compiled against the libraries in that
PROGRAM, and takes the place of the program's own main assembly: RESULT is the same runtime, with
ours in it. The libraries are trimmed: the compiler says what is not there.

ROSLYN is where the compiler's libraries are, DOTNET_ROOT where the runtime for them is. What lies
about afterwards is in the working directory.
"""

import os
import struct
import sys
from pathlib import Path

# Precedes the offset of the manifest in every such program: 8 bytes before it are the offset
# (dotnet/runtime, docs/design/features/host-startup.md and Microsoft.NET.HostModel, Bundle).
SIGNATURE = bytes.fromhex("8b1202b96a612038727b930214d7a03213f5b9e6efae3318ee3b2dce24b36aae")
ASSEMBLY = 1


def bundled(program):
    """Return name: (offset, size) of the assemblies in a program, of manifest version 6."""
    (position,) = struct.unpack_from("<q", program, program.index(SIGNATURE) - 8)
    major, _, count = struct.unpack_from("<III", program, position)
    assert major == 6, f"a manifest of version {major}"
    _, position = text(program, position + 12)  # what the build is called
    position += 40  # where two settings files are, and flags
    found = {}
    for _ in range(count):
        offset, size, packed = struct.unpack_from("<qqq", program, position)
        kind = program[position + 24]
        name, position = text(program, position + 25)
        assert not packed, f"{name} is compressed"
        if kind == ASSEMBLY:
            found[name] = offset, size
    return found


def text(program, position):
    """Return a string and what is behind it. Ours are shorter than 128 bytes."""
    length = program[position]
    assert length < 128
    end = position + 1 + length
    return program[position + 1 : end].decode(), end


def compile(source, name, references):
    """Return an assembly, or end with what the compiler said."""
    configuration = Path("compiler.runtimeconfig.json")
    configuration.write_text(
        '{"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"},'
        '"configProperties": {"System.Globalization.Invariant": true}}}'
    )
    import pythonnet
    from clr_loader import get_coreclr

    pythonnet.load(
        get_coreclr(runtime_config=configuration, dotnet_root=Path(os.environ["DOTNET_ROOT"]))
    )
    import clr

    sys.path.append(os.environ["ROSLYN"])
    clr.AddReference("Microsoft.CodeAnalysis")
    clr.AddReference("Microsoft.CodeAnalysis.CSharp")
    from Microsoft.CodeAnalysis import MetadataReference, OptimizationLevel, OutputKind, SyntaxTree
    from Microsoft.CodeAnalysis.CSharp import (
        CSharpCompilation,
        CSharpCompilationOptions,
        CSharpSyntaxTree,
    )
    from System.Collections.Generic import List
    from System.IO import File

    trees = List[SyntaxTree]()
    trees.Add(CSharpSyntaxTree.ParseText(source))
    known = List[MetadataReference]()
    for library in references:
        known.Add(MetadataReference.CreateFromFile(str(library)))
    options = CSharpCompilationOptions(
        OutputKind.ConsoleApplication, optimizationLevel=OptimizationLevel.Release
    )
    assembly = File.Create(f"{name}.dll")
    result = CSharpCompilation.Create(name, trees, known, options).Emit(assembly)
    assembly.Dispose()
    if not result.Success:
        sys.exit("\n".join(str(line) for line in result.Diagnostics))
    return Path(f"{name}.dll").read_bytes()


def main(source, program, result):
    host = bytearray(Path(program).read_bytes())
    assemblies = bundled(host)
    references = []
    for name, (offset, size) in assemblies.items():
        if name.startswith("System."):
            references.append(Path(name))
            references[-1].write_bytes(host[offset : offset + size])
    name = Path(program).name
    ours = compile(Path(source).read_text(), name, references)
    offset, size = assemblies[f"{name}.dll"]
    assert len(ours) <= size, f"{len(ours)} bytes are too many for {size}"
    host[offset : offset + size] = ours.ljust(size, b"\0")
    Path(result).write_bytes(host)
    Path(result).chmod(0o755)


if __name__ == "__main__":
    main(*sys.argv[1:])
