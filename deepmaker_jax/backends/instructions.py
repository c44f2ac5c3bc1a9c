"""Instructions that an emulated program executes: a plugin for QEMU, compiled where it is used.

Debian's qemu-user brings neither a plugin nor the header for one. What the plugin calls is
declared in its source instead: its few functions keep their form from version to version.
"""

import pathlib
import re
import tempfile
from collections.abc import Callable, Sequence

from deepmaker_jax.backends import tool
from deepmaker_jax.backends.backend import Tool

# An instruction counts where it lies in memory that no file is mapped to: a module's compiled
# kernels, as against the runtime, the loader and the C library. Blocks of instructions are counted
# as a whole, each time that they are entered.
SOURCE = """\
#include <inttypes.h>
#include <stdio.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
void* qemu_plugin_insn_haddr(const struct qemu_plugin_insn*);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb*, void (*)(unsigned, void*), int, void*);
void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void*), void*);

int qemu_plugin_version = API_VERSION;
static uint64_t executed;
static FILE* out;

static int is_of_a_file(uintptr_t address) {
  char line[4352];
  FILE* maps = fopen("/proc/self/maps", "r");
  int found = 1;
  while (maps && fgets(line, sizeof line, maps)) {
    uintptr_t first, end;
    unsigned long inode;
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %lu", &first, &end, &inode) == 3 &&
        first <= address && address < end) {
      found = inode != 0;
      break;
    }
  }
  if (maps) fclose(maps);
  return found;
}

static void count(unsigned cpu, void* num_instructions) {
  (void)cpu;
  executed += (uintptr_t)num_instructions;
}

static void translated(uint64_t id, struct qemu_plugin_tb* block) {
  (void)id;
  const uintptr_t num_instructions = qemu_plugin_tb_n_insns(block);
  void* address = qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(block, 0));
  if (!is_of_a_file((uintptr_t)address))
    qemu_plugin_register_vcpu_tb_exec_cb(block, count, 0, (void*)num_instructions);
}

static void ended(uint64_t id, void* data) {
  (void)id, (void)data;
  fprintf(out, "%" PRIu64 "\\n", executed);
  fclose(out);
}

int qemu_plugin_install(uint64_t id, const void* info, int argc, char** argv) {
  (void)info;
  out = argc == 1 ? fopen(argv[0] + 4, "w") : NULL;  /* out=PATH */
  if (!out) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
"""


def compiler() -> Tool:
    """Returns the compiler of the plugin."""
    return tool.program("g++", install="apt-get install g++")


def count(emulator: str | pathlib.Path, run: Callable[[Sequence[str]], object]) -> int:
    """Returns how many instructions of compiled modules a run executes; the same every time.

    Args:
      emulator: a `qemu-*` of QEMU's user mode.
      run: runs it once with these options behind its name.

    Raises:
      MissingToolError: there is no compiler.
      RuntimeError: the plugin does not compile, or not load into this emulator.
    """
    tool.need(compiler())
    said, _ = tool.run([emulator, "--version"])
    version = re.search(r"version (\d+)\.", said)
    if version is None:
        raise RuntimeError(f"{emulator} does not say its version: {said[:80]}")
    api = 2 if int(version[1]) >= 9 else 1  # QEMU 9 refuses 1, which older ones know alone
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        source, plugin, out = (folder / name for name in ("count.c", "count.so", "count"))
        source.write_text(SOURCE, encoding="utf-8")
        build = ["-x", "c", f"-DAPI_VERSION={api}", "-O2", "-fPIC", "-shared"]
        tool.run([tool.find_program("g++") or "g++", *build, source, "-o", plugin])
        run(["-plugin", f"{plugin},out={out}"])
        executed = int(out.read_text())
    if executed == 0:
        raise RuntimeError("no instruction ran outside of mapped files: modules load otherwise now")
    return executed
