#include "common/memory.h"
#include "pipeline/commands/commands.h"

int main(int argc, char** argv) {
  salient::keep_freed_memory();
  return salient::pipeline::run_program({argv + 1, argv + argc});
}
