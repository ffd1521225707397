#include "common/error.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/run_command.h"
#include "pipeline/commands/session.h"
#include "pipeline/post_train.h"

namespace salient::pipeline {

void hook_command(const std::vector<std::string>& words) {
  std::vector<OptionRow> rows = run_options();
  rows.push_back(adapter_base_option());
  const Arguments arguments(
      {"hook", "post-train CHECKPOINT",
       "What a training calls when it has ended: reads CHECKPOINT/training_metadata.json, which says how it was trained and what "
       "is planned\n"
       "(method, bits, group size, calibration, evaluation), and does the whole run: calibration prompts, quantization, naming and "
       "storing,\n"
       "detection, evaluation. The result lies beside the checkpoint, in its parent folder; the checkpoint is not touched. "
       "CHECKPOINT may be a\n"
       "LoRA adapter: its base is merged with it. Run again it does nothing that is done; stopped, it goes on where it was.\n\n"
       "Exit codes: 0 done, or nothing planned; 2 a key is missing or wrong; 3 a file is not there; 4 a file is broken; 5 not "
       "supported;\n"
       "6 the system refused; 7 done, but a bound of the plan is missed.",
       "  salient hook post-train outputs/checkpoint-500\n"
       "  salient hook post-train outputs/my-lora --adapter-base models/Qwen3-0.6B --json\n"
       "  salient hook post-train outputs/checkpoint-500 --set quantization.group_size=64 --dry-run\n"},
      rows, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  const std::vector<std::string>& given = arguments.positional();
  if (given.empty() || given.front() != "post-train") {
    throw Error(ErrorKind::kInvalidArgument, given.empty()
                                                 ? std::string("salient hook: no hook is named, expected post-train")
                                                 : fmt::format("salient hook: found '{}', expected post-train", given.front()))
        .with_hint("salient hook post-train CHECKPOINT");
  }
  if (given.size() != 2) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("salient hook post-train: found {} checkpoints, expected one", given.size() - 1))
        .with_hint("salient hook post-train CHECKPOINT");
  }
  apply_common_options(arguments);
  const std::optional<RunConfig> config = load_post_train_config(given[1], arguments.values("set"));
  if (config) return run_and_print(*config, arguments);
  if (arguments.flag("json")) return print_json({{"planned", false}});
  print_text(fmt::format("{}: its training_metadata.json plans no quantization; nothing to do", given[1]));
}

}  // namespace salient::pipeline
