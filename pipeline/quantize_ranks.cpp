#include "pipeline/quantize_ranks.h"

#include <array>
#include <span>

#include "common/error.h"
#include "common/memory.h"
#include "pipeline/artifact_files.h"
#include "pipeline/block_step.h"
#include "pipeline/gguf_head.h"
#include "pipeline/quantize_session.h"
#include "pipeline/search_result.h"
#include "pipeline/source_files.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kOrder = "order";
constexpr const char* kPlan = "plan";
constexpr const char* kLook = "look";
constexpr const char* kBegin = "begin";
constexpr const char* kBlock = "block";
constexpr const char* kHead = "head";
constexpr const char* kEnd = "end";

bool has_hidden(const QuantizeWork& job, int64_t block) {
  if (!fs::exists(job.hidden_path(block))) return false;
  try {
    job.open_hidden(block);
    return true;
  } catch (const Error&) {  // cut off
    return false;
  }
}

// Whether it is so on all ranks.
bool on_all(const QuantizeWork& job, bool here) {
  std::array<int64_t, 1> ranks = {here ? 1 : 0};
  job.options.ranks->sum(std::span<int64_t>(ranks));
  return ranks[0] == job.options.ranks->size();
}

void check_rows(const calibration::TokenBlocks& tokens, const Ranks& ranks) {
  const int64_t rows = tokens.ids.size(0);
  if (rows >= ranks.size()) return;
  if (rows == 0) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("without calibration rows there is nothing to share among {} ranks", ranks.size()))
        .with_hint("start the command without mpirun: the scales are given and weights are rounded to nearest, which is quick");
  }
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("{} rows of calibration tokens are too few for {} ranks: each of them runs some", rows, ranks.size()))
      .with_hint("start fewer ranks, or give more calibration samples (--samples, or a shorter --max-seq-len)");
}

void check_folder(const QuantizeWork& job) {
  if (fs::exists(job.work)) return;
  throw Error(ErrorKind::kNotFound, fmt::format("{}: rank 0 works in this folder, here it is not to be seen", job.work.string()))
      .with_hint("ranks on several machines need an output folder on a file system that all of them see under the same path");
}

// A rank other than 0: does as it is told.
class Follower {
 public:
  Follower(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens)
      : job_(given, tokens), awq_(job_.options.awq) {}

  void run() {
    check_same_work(job_);
    pass_.emplace(job_.make_pass());
    for (;;) {
      std::string text;
      job_.options.ranks->broadcast(text, 0);
      const Json order = parse_json(text, "an order of rank 0");
      const std::string what = order.at(kOrder).get<std::string>();
      if (what == kEnd) return;
      if (what == kPlan) awq_.planned_bits = order.at("bits").get<std::map<std::string, int>>();
      if (what == kLook) on_all(job_, has_hidden(job_, order.at("block").get<int64_t>()));
      if (what == kBegin) begin();
      if (what == kBlock) run_block(order.at("block").get<int64_t>(), order.at("needs_output").get<bool>());
      if (what == kHead) {
        const ActivationFile hidden = job_.open_hidden(job_.blocks());
        head_statistics(job_.checkpoint, job_.config, *pass_, reader_of(hidden));
      }
    }
  }

 private:
  void begin() {
    check_folder(job_);
    job_.embed(*pass_).sync();
    meet_ranks(job_, 0);
  }

  void run_block(int64_t block, bool needs_output) {
    std::error_code ignored;
    if (block > 0) fs::remove(job_.hidden_path(block - 1), ignored);  // the progress names a later one by now
    const TensorSink nowhere{[](const std::string&, const at::Tensor&) {}, [](const std::string&, int64_t, const at::Tensor&) {},
                             job_.options.search_output.empty() ? nullptr : &found_};
    BlockStep step{job_.checkpoint, job_.config, awq_, *pass_, job_.stored, job_.work, nowhere, {}};
    step.needs_output = needs_output;
    {
      const ActivationFile input = job_.open_hidden(block);
      ActivationFile output = job_.create_hidden(block + 1);
      run_block_step(step, block, input, output);
      output.sync();
    }
    found_ = {};
    return_free_memory();
    meet_ranks(job_, block + 1);
  }

  QuantizeWork job_;
  AwqOptions awq_;  // with planned_bits
  std::optional<CalibrationPass> pass_;
  SearchResult found_;  // of what every rank knows; rank 0 keeps it
};

}  // namespace

void check_shared(const QuantizeModelOptions& options) {
  if (!is_shared(options.ranks)) return;
  const auto refuse = [&](const char* what, const char* instead) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{} cannot be shared over ranks, and there are {}", what, options.ranks->size()))
        .with_hint(instead);
  };
  if (options.awq.objective == Objective::kBlock && options.awq.scale && options.awq.search == nullptr)
    refuse("objective block", "start the command without mpirun, or use objective gram");
  if (options.awq.rows_curve) refuse("rows_curve", "start the command without mpirun, or leave the rows curve out");
}

QuantizeModelResult quantize_over_ranks(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens) {
  Ranks& ranks = *given.ranks;
  check_rows(tokens, ranks);
  QuantizeModelOptions options = given;
  // The source is read once, not by every rank.
  std::string hashes;
  if (ranks.is_root() && options.source_hashes.is_null()) options.source_state = source_state(options.model_folder);
  if (ranks.is_root())
    hashes = dump_json(options.source_hashes.is_null() ? hash_source_files(models::Checkpoint(options.model_folder).folder())
                                                       : options.source_hashes);
  ranks.broadcast(hashes, 0);
  options.source_hashes = parse_json(hashes, "the hashes of rank 0");
  if (!ranks.is_root()) {
    Follower(options, tokens).run();
    QuantizeModelResult result;
    result.folder = options.output;
    return result;
  }
  QuantizeSession session(options, tokens);
  while (!session.finished() && session.blocks_done() < session.work().blocks()) session.run_block();
  return session.finish();
}

void check_same_work(const QuantizeWork& job) {
  if (!job.is_shared()) return;
  std::string of_root = job.fingerprint;
  job.options.ranks->broadcast(of_root, 0);
  if (of_root == job.fingerprint) return;
  throw Error(ErrorKind::kInvalidArgument, "this rank has made another job than rank 0 of the same command")
      .with_hint("all ranks must see the same model and calibration files, and run the same version of Salient and of libtorch");
}

Json plan_order(const std::map<std::string, int>& planned_bits) { return {{kOrder, kPlan}, {"bits", planned_bits}}; }
Json begin_order() { return {{kOrder, kBegin}}; }
Json block_order(int64_t block, bool needs_output) { return {{kOrder, kBlock}, {"block", block}, {"needs_output", needs_output}}; }
Json head_order() { return {{kOrder, kHead}}; }
Json end_order() { return {{kOrder, kEnd}}; }

void tell_ranks(const QuantizeWork& job, const Json& order) {
  if (!job.is_shared()) return;
  std::string text = dump_json(order);
  job.options.ranks->broadcast(text, 0);
}

bool ranks_can_go_on(const QuantizeWork& job, int64_t block) {
  if (!job.is_shared()) return true;
  tell_ranks(job, {{kOrder, kLook}, {"block", block}});
  return on_all(job, has_hidden(job, block));
}

void meet_ranks(const QuantizeWork& job, int64_t block, QuantizeProgress* progress) {
  if (!job.is_shared()) return;
  Ranks& ranks = *job.options.ranks;
  const std::string own = ranks.is_root() ? std::string() : file_checksum(job.hidden_path(block));
  for (int from = 1; from < ranks.size(); ++from) {
    std::string checksum = own;
    ranks.send(checksum, from, 0);
    if (progress != nullptr) note_file(*progress, hidden_file(job.work, block, from), checksum);
  }
}

}  // namespace salient::pipeline
