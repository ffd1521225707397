#include "pipeline/commands/commands.h"

int main(int argc, char** argv) {
  return salient::pipeline::run_program({argv + 1, argv + argc});
}
