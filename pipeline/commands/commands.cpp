#include "pipeline/commands/commands.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "common/error.h"
#include "common/interrupt.h"
#include "common/text.h"
#include "pipeline/commands/batch_commands.h"
#include "pipeline/commands/metal_marlin_commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/current_error.h"

namespace salient::pipeline {
namespace {

constexpr std::array kCommands = {
    Command{"run", "the whole chain of a config: calibrate, quantize, store, detect, evaluate", run_command},
    Command{"sweep", "quantize and evaluate with many settings, sharing the work; table, plots, best points", sweep_command},
    Command{"launch", "several run configs as jobs, on this machine or on Slurm", launch_command},
    Command{"hook", "what a training calls when it has ended: the run that its training_metadata.json plans", hook_command},
    Command{"calibrate", "make calibration prompts out of training data", calibrate_command},
    Command{"quantize", "quantize a checkpoint: AWQ with compensated rounding, 2 to 8 bits, several formats", quantize_command},
    Command{"eval", "evaluate models, quantized ones beside their original", eval_command},
    Command{"evaluate-all", "evaluate every model below a folder, each quantized one beside its base, and rank them",
            evaluate_all_command},
    Command{"watch", "evaluate models as they appear complete in a folder", watch_command},
    Command{"report", "write an HTML page of evaluated models: figures, plots, and every answer", report_command},
    Command{"explain", "say where a quantized model's error lies, and why", explain_command},
    Command{"sensitivity", "say which block or projection of a quantized model costs most", sensitivity_command},
    Command{"verify", "check an artifact against its hashes, and make its first blocks again from the source", verify_command},
    Command{"verify-smoothing", "compare a smoothed checkpoint with its base: weights and logits", verify_smoothing_command},
    Command{"export", "write a model in another format, without calibration", export_command},
    Command{"imatrix", "measure llama.cpp's importance matrix of a model", imatrix_command},
    Command{"generate", "continue prompts, on the terminal or as JSON", generate_command},
    Command{"bench", "measure speed and memory of a model, and the share of the memory's bandwidth", bench_command},
    Command{"inspect", "say what a model folder holds, and from which evidence", inspect_command},
    Command{"architectures", "list the architectures that can be quantized", architectures_command},
    Command{"runs", "list the runs in the store", runs_command},
    Command{"models", "list the artifacts in the store", models_command},
    Command{"results", "list the evaluation results in the store", results_command},
    Command{"answers", "list whose answers the store keeps, and drop those that nobody needs", answers_command},
    Command{"store", "carry runs and results from one store to another: export, import", store_command},
    Command{"tracking", "what experiment trackers were told of runs, and what still waits for them", tracking_command},
    Command{"awq-quantize", "Metal Marlin's AWQ: packed codes, scales, zeros and q_scale out of recorded activations",
            awq_quantize_command},
    Command{"awq-dequantize", "the inverse of awq-quantize", awq_dequantize_command},
    Command{"activation-stats", "importance of each input channel in an activation .npz", activation_stats_command},
    Command{"salient-weights", "which weights of a model are salient", salient_weights_command},
    Command{"logits", "write the logits of given token ids, to compare with other programs", logits_command},
    Command{"tokenize", "token ids of JSON strings, to compare with other programs", tokenize_command},
    Command{"render", "a chat template rendered over messages", render_command},
};

std::string usage() {
  std::string text =
      "Salient " SALIENT_VERSION
      ": AWQ quantization as the step after fine-tuning, with the evaluation that says what it broke.\n\nusage: salient COMMAND "
      "[options]\n\ncommands:\n";
  for (const Command& command : kCommands) text += fmt::format("  {:<17} {}\n", command.name, command.summary);
  text +=
      "\nexamples:\n"
      "  salient run configs/demo.yaml\n"
      "  salient quantize --model models/demo --calib calibration_openmath_2000samples.jsonl --out demo_awq\n"
      "  salient eval demo_awq --compare-with models/demo --tasks perplexity --data perplexity=heldout.txt\n"
      "\nsalient COMMAND --help explains a command. Exit codes: 0 done, 2 invalid argument, 3 not found, 4 corrupt data, 5 "
      "unsupported,\n"
      "6 input/output error, 7 a check failed, 8 cancelled, 1 internal error; ended by a signal 128 and its number, as a shell "
      "counts.\n";
  return text;
}

}  // namespace

std::span<const Command> commands() { return kCommands; }

void run_words(const std::vector<std::string>& words) {
  if (words.empty()) throw Error(ErrorKind::kInvalidArgument, "no command is named").with_hint("salient --help lists the commands");
  if (words[0] == "help" && words.size() > 1) return run_words({words[1], "--help"});
  if (words[0] == "--help" || words[0] == "-h" || words[0] == "help") return print_text(usage());
  if (words[0] == "--version") return print_text("salient " SALIENT_VERSION);
  const auto found =
      std::find_if(kCommands.begin(), kCommands.end(), [&](const Command& command) { return command.name == words[0]; });
  if (found == kCommands.end()) {
    std::vector<std::string> names;
    for (const Command& command : kCommands) names.emplace_back(command.name);
    throw Error(ErrorKind::kInvalidArgument, fmt::format("unknown command '{}'{}", words[0], did_you_mean(words[0], names)))
        .with_hint("salient --help lists the commands");
  }
  found->run({words.begin() + 1, words.end()});
}

int run_program(const std::vector<std::string>& words) {
  if (words.empty()) {
    std::fputs(usage().c_str(), stderr);
    return static_cast<int>(ErrorKind::kInvalidArgument);
  }
  const Interrupt interrupt(Interrupt::Second::kEnds);
  const CancellationScope scope(interrupt.token());
  try {
    run_words(words);
    return 0;
  } catch (...) {
    const Error error = current_error();
    print_error(error);
    if (error.kind() == ErrorKind::kCancelled && interrupt.signal() != 0) end_by_signal(interrupt.signal());
    return static_cast<int>(error.kind());
  }
}

}  // namespace salient::pipeline
