// The commands of the program: one row, one file each.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace salient::pipeline {

struct Command {
  std::string_view name;
  std::string_view summary;
  // `words`: what follows the command's name. Prints results to standard output; errors are thrown.
  void (*run)(const std::vector<std::string>& words);
};

std::span<const Command> commands();

void answers_command(const std::vector<std::string>& words);
void architectures_command(const std::vector<std::string>& words);
void bench_command(const std::vector<std::string>& words);
void calibrate_command(const std::vector<std::string>& words);
void eval_command(const std::vector<std::string>& words);
void generate_command(const std::vector<std::string>& words);
void export_command(const std::vector<std::string>& words);
void explain_command(const std::vector<std::string>& words);
void hook_command(const std::vector<std::string>& words);
void imatrix_command(const std::vector<std::string>& words);
void inspect_command(const std::vector<std::string>& words);
void launch_command(const std::vector<std::string>& words);
void logits_command(const std::vector<std::string>& words);
void models_command(const std::vector<std::string>& words);
void quantize_command(const std::vector<std::string>& words);
void report_command(const std::vector<std::string>& words);
void render_command(const std::vector<std::string>& words);
void results_command(const std::vector<std::string>& words);
void run_command(const std::vector<std::string>& words);
void sweep_command(const std::vector<std::string>& words);
void runs_command(const std::vector<std::string>& words);
void sensitivity_command(const std::vector<std::string>& words);
void store_command(const std::vector<std::string>& words);
void tracking_command(const std::vector<std::string>& words);
void tokenize_command(const std::vector<std::string>& words);
void verify_command(const std::vector<std::string>& words);
void verify_smoothing_command(const std::vector<std::string>& words);

// One call of the program, without its name: dispatches; results, notes and progress go where pipeline/commands/session.h says.
// Errors are thrown.
void run_words(const std::vector<std::string>& words);

// The whole program: dispatches, prints errors, returns the exit code (the error's kind, see common/error.h).
int run_program(const std::vector<std::string>& words);

}  // namespace salient::pipeline
