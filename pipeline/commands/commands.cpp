#include "pipeline/commands/commands.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <new>
#include <system_error>

#include "common/error.h"
#include "common/text.h"
#include "pipeline/commands/metal_marlin_commands.h"

namespace salient::pipeline {
namespace {

constexpr std::array kCommands = {
    Command{"run", "the whole chain of a config: calibrate, quantize, store, detect, evaluate", run_command},
    Command{"calibrate", "make calibration prompts out of training data", calibrate_command},
    Command{"quantize", "quantize a checkpoint: AWQ with compensated rounding, 2 to 8 bits, several formats", quantize_command},
    Command{"eval", "evaluate models, quantized ones beside their original", eval_command},
    Command{"report", "write an HTML page of evaluated models: figures, plots, and every answer", report_command},
    Command{"explain", "say where a quantized model's error lies, and why", explain_command},
    Command{"sensitivity", "say which block or projection of a quantized model costs most", sensitivity_command},
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
      "\nsalient COMMAND --help explains a command. Exit codes: 0 done, 2 invalid argument, 3 not found, 4 corrupt data, 5 unsupported,\n"
      "6 input/output error, 7 a check failed, 1 internal error.\n";
  return text;
}

void print_error(const Error& error) {
  const std::string code = error.code().empty() ? "" : fmt::format(" [{}]", error.code());
  std::fprintf(stderr, "salient: %s%s: %s\n", std::string(to_string(error.kind())).c_str(), code.c_str(), error.message().c_str());
  if (!error.hint().empty()) std::fprintf(stderr, "  hint: %s\n", error.hint().c_str());
}

// What libtorch throws has a back trace behind its first line.
Error from_torch(const c10::Error& error) {
  std::string text = error.what_without_backtrace();
  text = one_line(text.substr(0, text.find('\n')));
  if (text.find("out of memory") != std::string::npos) {
    return Error(ErrorKind::kIo, text).with_code("CUDA_OUT_OF_MEMORY").with_hint("use fewer tokens at a time (--batch-tokens; evaluation.batch_tokens of a config), or the device cpu");
  }
  if (text.find("no kernel image") != std::string::npos || text.find("Could not run") != std::string::npos) {
    return Error(ErrorKind::kUnsupported, text).with_code("KERNEL_NOT_FOUND").with_hint("this libtorch has no such operator for the device; try --device cpu");
  }
  if (text.find("can't allocate memory") != std::string::npos) {
    return Error(ErrorKind::kIo, text).with_code("OUT_OF_MEMORY").with_hint("use fewer tokens at a time (--batch-tokens) or a machine with more memory");
  }
  return Error(ErrorKind::kInternal, text);
}

// What std::filesystem throws where nobody translated it: the operating system refused.
Error from_filesystem(const std::filesystem::filesystem_error& error) {
  const std::string where = error.path2().empty() ? error.path1().string() : error.path1().string() + " -> " + error.path2().string();
  const std::string text = fmt::format("{}: {}", where, error.code().message());
  if (error.code() == std::errc::no_such_file_or_directory) return Error(ErrorKind::kNotFound, text);
  Error translated(ErrorKind::kIo, text);
  if (error.code() == std::errc::no_space_on_device) translated.with_code("DISK_FULL").with_hint("free some space and give the same command again");
  return translated;
}

int dispatch(const std::vector<std::string>& words) {
  if (words.empty() || words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    std::fputs(usage().c_str(), words.empty() ? stderr : stdout);
    return words.empty() ? static_cast<int>(ErrorKind::kInvalidArgument) : 0;
  }
  if (words[0] == "--version") {
    std::puts("salient " SALIENT_VERSION);
    return 0;
  }
  const auto found = std::find_if(kCommands.begin(), kCommands.end(), [&](const Command& command) { return command.name == words[0]; });
  if (found == kCommands.end()) {
    std::vector<std::string> names;
    for (const Command& command : kCommands) names.emplace_back(command.name);
    throw Error(ErrorKind::kInvalidArgument, fmt::format("unknown command '{}'{}", words[0], did_you_mean(words[0], names)))
        .with_hint("salient --help lists the commands");
  }
  found->run({words.begin() + 1, words.end()});
  return 0;
}

}  // namespace

std::span<const Command> commands() { return kCommands; }

int run_program(const std::vector<std::string>& words) {
  try {
    return dispatch(words);
  } catch (const Error& error) {
    print_error(error);
    return static_cast<int>(error.kind());
  } catch (const c10::Error& error) {
    const Error translated = from_torch(error);
    print_error(translated);
    return static_cast<int>(translated.kind());
  } catch (const std::filesystem::filesystem_error& error) {
    const Error translated = from_filesystem(error);
    print_error(translated);
    return static_cast<int>(translated.kind());
  } catch (const std::bad_alloc&) {
    print_error(Error(ErrorKind::kIo, "out of memory").with_code("OUT_OF_MEMORY").with_hint("use fewer tokens at a time (--batch-tokens; evaluation.batch_tokens of a config)"));
    return static_cast<int>(ErrorKind::kIo);
  } catch (const std::exception& error) {
    print_error(Error(ErrorKind::kInternal, error.what()).with_hint("this is a defect of Salient; please report the command"));
    return static_cast<int>(ErrorKind::kInternal);
  }
}

}  // namespace salient::pipeline
