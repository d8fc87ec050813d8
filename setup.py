"""Builds `functx._C`, the C++ core with its Python binding. All metadata is in pyproject.toml.

Environment: FUNCTX_DEBUG=1 builds with -O0 -g; MAX_JOBS bounds the parallel compile jobs;
CXX chooses the compiler; ccache is used when it is on PATH.
"""

import os
import shutil
import subprocess
import sys
from glob import glob

import torch
from setuptools import setup
from torch.utils import cpp_extension

DEBUG = os.environ.get("FUNCTX_DEBUG", "0") == "1"

# A venv that is used without being activated still has its ninja beside its python.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])

# torch 2.13 puts ccache in front of the compiler by itself; 2.11 and 2.12 take it from CXX, and
# their check of the compiler's ABI does not see through it.
if (
    not hasattr(cpp_extension, "_wrap_compiler")
    and "CXX" not in os.environ
    and shutil.which("ccache")
):
    os.environ["CXX"] = "ccache c++"
    os.environ["TORCH_DONT_CHECK_COMPILER_ABI"] = "1"


class BuildExtension(cpp_extension.BuildExtension):
    """Keeps object files, so that every way to build (pip install -e too) is incremental."""

    def finalize_options(self) -> None:
        # The torch version is in the name because ninja does not track system headers: objects
        # compiled against another torch must not be linked again.
        kind = "debug" if DEBUG else "release"
        tag = sys.implementation.cache_tag
        self.build_temp = os.path.join("build", f"{tag}-torch-{torch.__version__}-{kind}")
        super().finalize_options()

    def build_extensions(self) -> None:
        if header := self.precompiled_header():
            for extension in self.extensions:
                extension.extra_compile_args += ["-include", header]
        super().build_extensions()

    def precompiled_header(self) -> str | None:
        """Half of the time that a file takes goes into PyTorch's headers: they are parsed once.

        GCC takes the result only if all flags are as they were; else it reads the header.
        """
        compiler = cpp_extension.get_cxx_compiler().split()[-1]
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True)
        if "Free Software Foundation" not in version.stdout:
            return None
        source = os.path.abspath(os.path.join("csrc", "precompiled.h"))
        header = os.path.abspath(os.path.join(self.build_temp, "precompiled.h"))
        result = header + ".gch"
        newest = max(map(os.path.getmtime, [source, os.path.abspath(__file__)]))
        if not os.path.exists(result) or os.path.getmtime(result) < newest:
            os.makedirs(self.build_temp, exist_ok=True)
            shutil.copyfile(source, header)
            flags = [*self.compiler.compiler_so[1:], *compile_flags(), *DEFINITIONS]
            flags += [f"-I{path}" for path in self.compiler.include_dirs]
            command = [compiler, *flags, "-x", "c++-header", header, "-o", result]
            subprocess.run(command, check=True)
        # ccache has to be told that it is right to look at the flags and not into the result.
        os.environ.setdefault("CCACHE_SLOPPINESS", "pch_defines,time_macros")
        return header


# As PyTorch's extensions are compiled.
DEFINITIONS = ["-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_C"]


def compile_flags() -> list[str]:
    flags = ["-std=c++20", "-fvisibility=hidden", "-Wall", "-Wextra"]
    # The default has no debug info: it would nearly double the compile time.
    flags += ["-O0", "-g"] if DEBUG else ["-O2", "-g0"]
    # PyTorch's headers are not ours to mend: -isystem wins over the -I that CppExtension adds for
    # the same folder, and silences the warnings from there without hiding one of our own.
    for path in cpp_extension.include_paths():
        flags += ["-isystem", path]
    return flags


setup(
    ext_modules=[
        cpp_extension.CppExtension(
            name="functx._C",
            sources=sorted(glob("csrc/**/*.cpp", recursive=True)),
            # For the source distribution; ninja finds the real header dependencies by itself.
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            include_dirs=[os.path.abspath("csrc")],
            extra_compile_args=compile_flags(),
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
