#include "pipeline/quantize_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <map>
#include <optional>

#include "common/error.h"
#include "common/file.h"
#include "common/memory.h"
#include "models/decoder/streamed_head.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "pipeline/bit_plan_file.h"
#include "pipeline/block_step.h"
#include "pipeline/gguf_head.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/quantize_checks.h"
#include "pipeline/quantize_output.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/quantize_work.h"
#include "pipeline/search_file.h"
#include "pipeline/weight_formats.h"
#include "pipeline/work_folder.h"
#include "quant/affine.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using models::Checkpoint;
using models::DecoderConfig;

void put_outer(const TensorSink& sink, const Checkpoint& checkpoint, const std::vector<models::PlannedTensor>& tensors) {
  for (const models::PlannedTensor& planned : tensors) {
    sink.put(planned.name, checkpoint.load(planned.name, planned.shape, planned.dtype));
  }
}

// As they are, whatever their dtype.
void copy_kept(models::CheckpointWriter& writer, const Checkpoint& checkpoint, const std::vector<models::PlannedTensor>& tensors) {
  for (const models::PlannedTensor& planned : tensors) {
    writer.put(planned.name, checkpoint.view(planned.name));
    checkpoint.release(planned.name);
  }
}

// Progress without the shards that it speaks of: somebody tidied up in the work folder.
void check_taken_over(const models::CheckpointWriter& writer, const models::ShardPlan& plan, const fs::path& work) {
  for (const models::ShardPlan::Shard& shard : plan.shards) {
    const std::string& tensor = shard.tensors.front().name;
    if (writer.taken_over(tensor)) continue;
    throw Error(ErrorKind::kCorruption, fmt::format("{}: the work of a stopped job is there, but its shard with {} is not", work.string(), tensor))
        .with_hint("remove that folder and give the same command again");
  }
}

// Experts that no calibration token reached.
std::string coverage_note(const std::vector<LinearReport>& reports, int64_t block) {
  int64_t linears = 0;
  int64_t unreached = 0;
  for (const LinearReport& report : reports) {
    linears += report.routed_tokens >= 0;
    unreached += report.routed_tokens == 0;
  }
  if (unreached == 0) return "";
  return fmt::format(
      "block {}: {} of {} linears of experts were reached by no calibration token: rounded to nearest; more samples may reach them",
      block, unreached, linears);
}

// lm_head in codes, from its own weight or the embedding that it shares.
void put_head(models::CheckpointWriter& writer, const Checkpoint& checkpoint, const DecoderConfig& config,
              const AwqOptions& options, at::ScalarType dtype) {
  const at::Tensor weight =
      checkpoint.load(models::head_tensor(config), {config.vocab_size, config.hidden_size}, at::kFloat, at::kCPU);
  const quant::QuantizedWeight rounded =
      quant::quantize_affine(weight, {kHeadSetting.bits, config.hidden_size, kHeadSetting.zero_point, dtype});
  for (const auto& [name, tensor] : packed_tensors(options.format, std::string(config.names.lm_head), rounded, kHeadSetting, dtype))
    writer.put(name, tensor);
}

// "12 modules with 3, 16 with 4"
std::string count_bits(const BitPlan& plan) {
  std::map<int, int64_t> counts;
  for (const PlannedModule& module : plan.modules) ++counts[module.bits];
  std::string text;
  for (const auto& [bits, count] : counts)
    text += fmt::format("{}{}{} with {}", text.empty() ? "" : ", ", count, text.empty() ? " modules" : "", bits);
  return text;
}

void add_sensitivities(std::vector<LinearReport>& reports, const BitPlan& plan) {
  std::map<std::string, const PlannedModule*> by_name;
  for (const PlannedModule& module : plan.modules) by_name[module.name] = &module;
  for (LinearReport& report : reports) {
    if (const auto module = by_name.find(report.name); module != by_name.end()) report.sensitivity = module->second->sensitivity;
  }
}

QuantizeModelResult nothing_to_do(const QuantizeWork& job, const QuantizeProgress& finished) {
  QuantizeModelResult result;
  result.folder = job.options.output;
  result.reports = finished.reports;
  result.resumed_blocks = job.blocks();
  return result;
}

// What each module gets with target_bits; measured once for a job, however often it is stopped.
std::optional<BitPlan> find_bits(const QuantizeWork& job) {
  const QuantizeModelOptions& options = job.options;
  if (options.awq.target_bits <= 0) return std::nullopt;
  std::optional<BitPlan> bits = load_bit_plan(job.work, job.fingerprint);
  if (!bits) {
    const CalibrationPass pass(job.config, job.tokens, options.device, options.batch_tokens);
    const auto embed = [&](ActivationFile& hidden) { embed_tokens(job.checkpoint, job.config, pass, job.tokens.ids, hidden); };
    bits = plan_bits({job.checkpoint, job.config, options.awq, job.tokens, pass, job.stored, job.work, embed,
                      options.awq.bit_choices, options.on_planning});
    save_bit_plan(job.work, job.fingerprint, *bits);
  }
  job.say(fmt::format("{:.2f} bits a weight: {}", bits->mean_bits, count_bits(*bits)));
  return bits;
}

constexpr const char* kNoTensor = "none";

// Every tensor of the artifact, in the order in which they are stored.
models::ShardPlan plan_artifact(const QuantizeWork& job, const AwqOptions& awq, const OuterTensors& outer) {
  // A writer wants something to write.
  if (awq.search_only) return models::plan_shards({{kNoTensor, at::kByte, {1}}}, job.options.max_shard_bytes);
  if (job.gguf) return job.gguf->plan();
  std::vector<models::PlannedTensor> planned = outer.before;
  const auto append = [&](const std::vector<models::PlannedTensor>& tensors) {
    planned.insert(planned.end(), tensors.begin(), tensors.end());
  };
  for (int64_t block = 0; block < job.blocks(); ++block) append(plan_block(job.config, block, awq, job.stored, &job.checkpoint));
  append(outer.after);
  append(outer.head);
  append(job.kept);
  return models::plan_shards(planned, job.options.max_shard_bytes);
}

// Takes tensors under their names in the checkpoint.
TensorSink sink_of(const QuantizeWork& job, models::CheckpointWriter& writer) {
  if (job.gguf) return job.gguf->sink(writer);
  return {[&](const std::string& name, const at::Tensor& tensor) { writer.put(name, tensor); },
          [&](const std::string& name, int64_t index, const at::Tensor& tensor) { writer.put_part(name, index, tensor); }};
}

// All that is not of a block, and the first block's input.
QuantizeProgress begin_work(const QuantizeWork& job, const AwqOptions& awq, const OuterTensors& outer, const CalibrationPass& pass,
                            models::CheckpointWriter& writer) {
  if (awq.search_only) {
    writer.put(kNoTensor, at::zeros({1}, at::kByte));
  } else {
    const TensorSink sink = sink_of(job, writer);
    const auto without_head = [&](std::vector<models::PlannedTensor> tensors) {  // it waits for what it will read
      std::erase_if(tensors, [&](const models::PlannedTensor& tensor) { return job.gguf && job.gguf->is_head(tensor.name); });
      return tensors;
    };
    put_outer(sink, job.checkpoint, without_head(outer.before));
    put_outer(sink, job.checkpoint, without_head(outer.after));
    if (job.gguf) job.gguf->put_constants(writer);
    if (!outer.head.empty()) put_head(writer, job.checkpoint, job.config, awq, packed_dtype(job.config, awq.format));
    copy_kept(writer, job.checkpoint, job.kept);
  }
  ActivationFile embedded = ActivationFile::create(hidden_file(job.work, 0), job.hidden_shape());
  embed_tokens(job.checkpoint, job.config, pass, job.tokens.ids, embedded);
  writer.sync();
  const QuantizeProgress progress{job.fingerprint, 0, {}};
  save_progress(job.work, progress, embedded);
  return progress;
}

void run_blocks(const QuantizeWork& job, const AwqOptions& awq, const std::optional<BitPlan>& bits, const CalibrationPass& pass,
                models::CheckpointWriter& writer, QuantizeProgress& progress) {
  const QuantizeModelOptions& options = job.options;
  SearchResult found;
  const bool keep = !options.search_output.empty();
  TensorSink sink{[](const std::string&, const at::Tensor&) {}, [](const std::string&, int64_t, const at::Tensor&) {}, nullptr};
  if (!awq.search_only) sink = sink_of(job, writer);
  if (keep) sink.found = &found;
  BlockStep step{job.checkpoint, job.config, awq, pass, job.stored, job.work, sink, {}};
  if (options.on_progress) options.on_progress(progress.blocks_done, job.blocks());
  for (int64_t block = progress.blocks_done; block < job.blocks(); ++block) {
    const ActivationFile input = ActivationFile::open(hidden_file(job.work, block), job.hidden_shape());
    ActivationFile output = ActivationFile::create(hidden_file(job.work, block + 1), job.hidden_shape());
    step.needs_output = block + 1 < job.blocks() || (job.gguf && job.gguf->head_type());
    std::vector<LinearReport> reports = run_block_step(step, block, input, output);
    if (bits) add_sensitivities(reports, *bits);
    progress.reports.insert(progress.reports.end(), reports.begin(), reports.end());
    progress.blocks_done = block + 1;
    if (keep) write_search(search_part(job.work, block), found);
    found = {};
    writer.sync();
    save_progress(job.work, progress, output);
    return_free_memory();
    if (const std::string note = coverage_note(reports, block); !note.empty()) job.say(note);
    if (options.on_progress) options.on_progress(progress.blocks_done, job.blocks());
  }
}

// The head of a GGUF file, once the hidden states that it reads are there.
void put_gguf_head(const QuantizeWork& job, const CalibrationPass& pass, models::CheckpointWriter& writer) {
  const auto type = job.gguf->head_type();
  if (!type) return;
  const ActivationFile hidden = ActivationFile::open(hidden_file(job.work, job.blocks()), job.hidden_shape());
  const quant::InputStatistics input = head_statistics(job.checkpoint, job.config, pass, hidden);
  const std::string name = models::head_tensor(job.config);
  const at::Tensor weight = job.checkpoint.view(name);
  const HeadBlocks head = quantize_head(job.config, weight, *type, input, job.options.awq);
  job.gguf->put_head(writer, head.blocks, weight);
  job.checkpoint.release(name);
  job.say(fmt::format("head: {}, {:.0f} % of the error of rounding to nearest", quant::ggml_type_info(*type).name,
                      head.rtn_error > 0 ? 100 * head.error / head.rtn_error : 100.0));
}

// In the work folder, which is locked: from what is there to the artifact.
QuantizeModelResult make_artifact(const QuantizeWork& job, const FolderLock& lock) {
  const std::optional<BitPlan> bits = find_bits(job);
  AwqOptions awq = job.options.awq;
  if (bits) {
    for (const PlannedModule& module : bits->modules) awq.planned_bits[module.name] = module.bits;
  }
  const OuterTensors outer = plan_outer(job.config, job.stored, &awq);
  const models::ShardPlan plan = plan_artifact(job, awq, outer);
  models::CheckpointWriter writer(lock, plan);
  std::optional<QuantizeProgress> progress = load_progress(job.work, job.fingerprint);
  QuantizeModelResult result;
  result.folder = job.options.output;
  result.bytes = plan.total_bytes;
  result.resumed_blocks = progress ? progress->blocks_done : 0;
  const bool hold_back = awq.rounding.kind == quant::RoundingKind::kGram && !awq.rounding.off_diagonal;
  const CalibrationPass pass(job.config, job.tokens, job.options.device, job.options.batch_tokens, hold_back, job.options.awq.rows_curve);
  if (progress) {
    check_taken_over(writer, plan, job.work);
    job.say(fmt::format("going on at block {} of {}", progress->blocks_done + 1, job.blocks()));
  } else {
    remove_progress(job.work);
    if (bits) save_bit_plan(job.work, job.fingerprint, *bits);
    progress = begin_work(job, awq, outer, pass, writer);
  }
  run_blocks(job, awq, bits, pass, writer, *progress);
  if (job.gguf) put_gguf_head(job, pass, writer);
  writer.finish();
  result.reports = std::move(progress->reports);
  if (!job.options.search_output.empty()) save_search(job);
  if (awq.search_only) {
    result.bytes = fs::file_size(job.options.search_output);
    fs::remove_all(job.work);
    return result;
  }
  write_other_files(job, awq, bits, QuantizeProgress{progress->fingerprint, progress->blocks_done, result.reports});
  publish(job);
  return result;
}

}  // namespace

calibration::TokenBlocks no_calibration() {
  calibration::TokenBlocks blocks;
  blocks.ids = at::zeros({0, 1}, at::kLong);
  blocks.lengths = at::zeros({0}, at::kLong);
  return blocks;
}

QuantizeModelResult quantize_model(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens) {
  const auto started = std::chrono::steady_clock::now();
  const at::NoGradGuard no_grad;
  check_quantization(given);
  const QuantizeWork job(given, tokens);
  for (const std::string& note : quantization_notes(job)) job.say(note);
  check_search_output(job);
  if (const auto finished = reusable_output(job)) return nothing_to_do(job, *finished);
  const bool replaces = fs::exists(job.options.output);
  check_work_folder(job.work);
  std::optional<FolderLock> lock;
  if (fs::exists(job.work)) {
    lock.emplace(models::lock_checkpoint_folder(job.work));
    if (const auto finished = finished_work(job)) {
      publish(job);
      return nothing_to_do(job, *finished);
    }
  }
  check_needs(job, /*disk=*/!lock);
  // Before anything is looked for or made in the folder, the plan of bits above all: what is in it from here on belongs to no other
  // job.
  if (!lock) {
    lock.emplace(models::lock_checkpoint_folder(job.work));
    if (!replaces &&
        fs::exists(job.options.output)) {  // another job was faster: what is to be said and done of its output is decided above
      std::error_code ignored;
      fs::remove(job.work, ignored);
      lock.reset();
      return quantize_model(given, tokens);
    }
  }
  QuantizeModelResult result = make_artifact(job, *lock);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

}  // namespace salient::pipeline
