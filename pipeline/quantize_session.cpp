#include "pipeline/quantize_session.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <map>

#include "common/error.h"
#include "common/file.h"
#include "common/memory.h"
#include "common/text.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/streamed_head.h"
#include "pipeline/bit_plan_file.h"
#include "pipeline/gguf_head.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/quantize_checks.h"
#include "pipeline/quantize_output.h"
#include "pipeline/quantize_ranks.h"
#include "pipeline/search_file.h"
#include "pipeline/uncalibrated_step.h"
#include "pipeline/weight_formats.h"
#include "pipeline/work_folder.h"
#include "quant/affine.h"
#include "quant/out_of_memory.h"

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
    throw Error(ErrorKind::kCorruption,
                fmt::format("{}: the work of a stopped job is there, but its shard with {} is not", work.string(), tensor))
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

// What each module gets with target_bits; measured once for a job, however often it is stopped.
std::optional<BitPlan> find_bits(const QuantizeWork& job) {
  const QuantizeModelOptions& options = job.options;
  if (options.awq.target_bits <= 0) return std::nullopt;
  std::optional<BitPlan> bits = load_bit_plan(job.work, job.fingerprint);
  if (!bits) {
    const CalibrationPass pass(job.config, job.tokens, options.device, options.batch_tokens);
    const auto embed = [&](ActivationFile& hidden) {
      embed_tokens(job.checkpoint, job.config, job.tokens.ids, pass.rows_of_batch(), hidden);
    };
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

// Bytes of tensors in an artifact's files: what plan_artifact counts, without the head of each file.
uint64_t stored_bytes(const fs::path& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".gguf") bytes += entry.file_size();
    if (extension != ".safetensors") continue;
    const MappedFile file(entry.path());
    uint64_t head = 0;
    std::memcpy(&head, file.bytes().data(), sizeof(head));
    bytes += entry.file_size() - sizeof(head) - head;
  }
  return bytes;
}

// Every layout of experts is measured expert by expert, from files of its own.
bool has_experts(const DecoderConfig& config) {
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    if (models::block_layout(config, block).experts > 0) return true;
  }
  return false;
}

}  // namespace

std::string why_not_shared(const DecoderConfig& config, const AwqOptions& options) {
  if (options.propagate_error) return "propagate_error: each block reads what the quantized blocks before it put out";
  if (options.objective == Objective::kBlock) return "objective block: modules are run with every candidate";
  if (has_experts(config)) return "a mixture of experts: each expert is measured by itself";
  if (options.rows_curve) return "the rows curve: it depends on the number of rows";
  return "";
}

QuantizeSession::QuantizeSession(const QuantizeModelOptions& given, const calibration::TokenBlocks& tokens, HiddenStates hidden)
    : hidden_(hidden), job_(given, tokens) {
  check_same_work(job_);
  for (const std::string& note : quantization_notes(job_)) job_.say(note);
  check_search_output(job_);
  while (!begin()) {
  }
  if (!finished_) prepare();
}

// False when another job was faster: what is to be said and done of its output is decided again.
bool QuantizeSession::begin() {
  if ((finished_ = reusable_output(job_))) return true;
  const bool replaces = fs::exists(job_.options.output);
  check_work_folder(job_.work);
  if (fs::exists(job_.work)) {
    lock_.emplace(models::lock_checkpoint_folder(job_.work));
    if ((finished_ = finished_work(job_))) {
      publish(job_);
      return true;
    }
    check_other_work(job_);
  }
  check_needs(job_, /*disk=*/!lock_);
  if (lock_) return true;
  // Before anything is looked for or made in the folder, the plan of bits above all: what is in it from here on belongs to no other
  // job.
  lock_.emplace(models::lock_checkpoint_folder(job_.work));
  if (replaces || !fs::exists(job_.options.output)) return true;
  std::error_code ignored;
  fs::remove(job_.work, ignored);
  lock_.reset();
  return false;
}

void QuantizeSession::prepare() {
  bits_ = find_bits(job_);
  awq_ = job_.options.awq;
  if (bits_) {
    for (const PlannedModule& module : bits_->modules) awq_.planned_bits[module.name] = module.bits;
    tell_ranks(job_, plan_order(awq_.planned_bits));
  }
  const OuterTensors outer = plan_outer(job_.config, job_.stored, &awq_);
  const models::ShardPlan plan = plan_artifact(job_, awq_, outer);
  writer_.emplace(*lock_, plan);
  std::optional<QuantizeProgress> progress = load_progress(job_.work, job_.fingerprint, /*hidden=*/hidden_ == HiddenStates::kOwn);
  if (progress && !ranks_can_go_on(job_, progress->blocks_done)) progress.reset();
  result_.folder = job_.options.output;
  result_.bytes = plan.total_bytes;
  pass_.emplace(job_.make_pass());
  if (progress) {
    check_taken_over(*writer_, plan, job_.work);
    if (const std::string changed = writer_->find_changed(progress->tensors); !changed.empty()) {
      job_.say(fmt::format("{}: tensor '{}' is not as it was written, beginning again", job_.work.string(), changed));
      progress.reset();
    }
  }
  result_.resumed_blocks = progress ? progress->blocks_done : 0;
  if (progress) {
    job_.say(fmt::format("going on at block {} of {}", progress->blocks_done + 1, job_.blocks()));
    progress_ = *progress;
  } else {
    remove_progress(job_.work);
    remove_results(job_.work);
    if (bits_) save_bit_plan(job_.work, job_.fingerprint, *bits_);
    begin_work(outer);
  }
  if (job_.options.on_progress) job_.options.on_progress(progress_.blocks_done, job_.blocks());
}

// All that is not of a block, and the first block's input.
void QuantizeSession::begin_work(const OuterTensors& outer) {
  if (awq_.search_only) {
    writer_->put(kNoTensor, at::zeros({1}, at::kByte));
  } else {
    const TensorSink sink = sink_of(job_, *writer_);
    const auto without_head = [&](std::vector<models::PlannedTensor> tensors) {  // it waits for what it will read
      std::erase_if(tensors, [&](const models::PlannedTensor& tensor) { return job_.gguf && job_.gguf->is_head(tensor.name); });
      return tensors;
    };
    put_outer(sink, job_.checkpoint, without_head(outer.before));
    put_outer(sink, job_.checkpoint, without_head(outer.after));
    if (job_.gguf) job_.gguf->put_constants(*writer_);
    if (job_.gguf && job_.gguf->head_type()) check_head(job_.checkpoint, models::head_tensor(job_.config));
    if (!outer.head.empty()) put_head(*writer_, job_.checkpoint, job_.config, awq_, packed_dtype(job_.config, awq_.format));
    copy_kept(*writer_, job_.checkpoint, job_.kept);
  }
  progress_ = {job_.fingerprint, job_.inputs, 0, {}, {}, {}};
  note_tensors();
  if (hidden_ == HiddenStates::kShared) {
    writer_->sync();
    save_progress(job_.work, progress_);
    return;
  }
  tell_ranks(job_, begin_order());
  const ActivationFile embedded = job_.embed(*pass_);
  writer_->sync();
  meet_ranks(job_, 0, &progress_);
  save_progress(job_.work, progress_, embedded);
}

void QuantizeSession::note_tensors() {
  for (auto& [name, checksum] : writer_->take_checksums()) progress_.tensors.insert_or_assign(name, checksum);
}

// `run`: stores the block's tensors through a step, and makes the progress durable.
template <typename Run>
void QuantizeSession::run_block_as(const Run& run) {
  SearchResult found;
  const bool keep = !job_.options.search_output.empty();
  TensorSink sink{[](const std::string&, const at::Tensor&) {}, [](const std::string&, int64_t, const at::Tensor&) {}, nullptr};
  if (!awq_.search_only) sink = sink_of(job_, *writer_);
  if (keep) sink.found = &found;
  const int64_t block = progress_.blocks_done;
  BlockStep step{job_.checkpoint, job_.config, awq_, *pass_, job_.stored, job_.work, sink, {}};
  step.needs_output = block + 1 < job_.blocks() || needs_last_output();
  const auto done = [&](std::vector<LinearReport> reports) {
    if (bits_) add_sensitivities(reports, *bits_);
    progress_.reports.insert(progress_.reports.end(), reports.begin(), reports.end());
    progress_.blocks_done = block + 1;
    if (keep) {
      write_search(search_part(job_.work, block), found);
      note_file(progress_, search_part(job_.work, block));
    }
    writer_->sync();
    note_tensors();
    if (const std::string note = coverage_note(reports, block); !note.empty()) job_.say(note);
  };
  run(step, block, done);
  return_free_memory();
  if (job_.options.on_progress) job_.options.on_progress(progress_.blocks_done, job_.blocks());
}

// run_block_step; where a device's memory does not hold the rows of a batch, again with half of them, and so on: sums over them
// keep their order, so that on the CPU no tensor changes. Where it does not hold the search, again with that on the CPU. Ranks that
// share a block wait for each other in places that one that begins again would miss: there it is an error.
std::vector<LinearReport> QuantizeSession::run_step(const BlockStep& step, int64_t block, const ActivationFile& input,
                                                    ActivationFile& output) {
  BlockStep now = step;
  for (;;) {
    try {
      return run_block_step(now, block, input, output);
    } catch (const SearchOutOfMemory& error) {
      if (job_.is_shared()) throw;
      now.search_on_cpu = true;
      job_.say(fmt::format("block {} of {}: {}: going on with them on the CPU", block + 1, job_.blocks(), error.message()));
    } catch (const c10::Error& error) {
      if (!quant::is_out_of_memory(error)) throw;
      const auto tokens = [&] { return pass_->rows_of_batch() * pass_->width(); };
      const std::string what = fmt::format("block {} of {}: {} tokens at a time do not fit into the device's memory", block + 1,
                                           job_.blocks(), tokens());
      if (job_.is_shared() || !pass_->halve_batch()) {
        throw Error(ErrorKind::kIo, fmt::format("{} ({})", what, first_line(error.what_without_backtrace())))
            .with_code("CUDA_OUT_OF_MEMORY")
            .with_hint(job_.is_shared() ? "use fewer tokens at a time (--batch-tokens), or the device cpu"
                                        : "use shorter rows (--max-seq-len), or the device cpu");
      }
      job_.say(fmt::format("{}: going on with {}", what, tokens()));
    }
    if (step.sink.found != nullptr) *step.sink.found = {};
    return_free_memory();
  }
}

void QuantizeSession::run_block() {
  run_block_as([&](const BlockStep& step, int64_t block, const auto& done) {
    tell_ranks(job_, block_order(block, step.needs_output));
    const ActivationFile input = job_.open_hidden(block);
    ActivationFile output = job_.create_hidden(block + 1);
    done(run_step(step, block, input, output));
    meet_ranks(job_, block + 1, &progress_);
    save_progress(job_.work, progress_, output);
  });
}

void QuantizeSession::run_block(MeasuredBlock measured) {
  run_block_as([&](const BlockStep& step, int64_t block, const auto& done) {
    done(run_measured_step(step, block, std::move(measured)));
    save_progress(job_.work, progress_);
  });
}

// The head of a GGUF file, once the hidden states that it reads are there. Returns its type and errors, null where it is in float.
Json QuantizeSession::put_gguf_head(const RowReader& last_output) {
  const auto type = job_.gguf->head_type();
  if (!type) return {};
  const auto measure = [&] {
    if (hidden_ == HiddenStates::kShared) return head_statistics(job_.checkpoint, job_.config, *pass_, last_output);
    tell_ranks(job_, head_order());
    const ActivationFile hidden = job_.open_hidden(job_.blocks());
    return head_statistics(job_.checkpoint, job_.config, *pass_, reader_of(hidden));
  };
  const quant::InputStatistics input = job_.tokens.ids.size(0) > 0 ? measure() : white_statistics(job_.config.hidden_size);
  const std::string name = models::head_tensor(job_.config);
  const at::Tensor weight = job_.checkpoint.view(name);
  const HeadBlocks head = with_context(fmt::format("{}: tensor '{}'", job_.checkpoint.file_of(name).string(), name),
                                       [&] { return quantize_head(job_.config, weight, *type, input, job_.options.awq); });
  job_.gguf->put_head(*writer_, head.blocks, weight);
  job_.checkpoint.release(name);
  job_.say(fmt::format("head: {}, {:.0f} % of the error of rounding to nearest", quant::ggml_type_info(*type).name,
                       head.rtn_error > 0 ? 100 * head.error / head.rtn_error : 100.0));
  return {{"type", quant::ggml_type_info(*type).name}, {"rtn_error", head.rtn_error}, {"error", head.error}};
}

QuantizeModelResult QuantizeSession::finish(const RowReader& last_output) {
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count(); };
  if (finished_) {
    tell_ranks(job_, end_order());
    result_.folder = job_.options.output;
    result_.reports = finished_->reports;
    result_.resumed_blocks = job_.blocks();
    result_.bytes = stored_bytes(result_.folder);
    return result_;
  }
  const Json head = job_.gguf ? put_gguf_head(last_output) : Json();
  tell_ranks(job_, end_order());
  // Days may lie between the first shard and the last: what was written then is what gets its SHA-256 now.
  if (const std::string changed = writer_->find_changed(progress_.tensors); !changed.empty()) {
    throw Error(ErrorKind::kCorruption, fmt::format("{}: tensor '{}' is not as it was written", job_.work.string(), changed))
        .with_hint("something else wrote there, or the disk fails: check it, then give the same command again, which begins anew");
  }
  writer_->finish();
  result_.reports = std::move(progress_.reports);
  if (!job_.options.search_output.empty()) save_search(job_);
  if (awq_.search_only) {
    result_.bytes = fs::file_size(job_.options.search_output);
    fs::remove_all(job_.work);
  } else {
    check_source(job_);
    write_other_files(job_, awq_, bits_,
                      QuantizeProgress{progress_.fingerprint, {}, progress_.blocks_done, result_.reports, {}, {}}, head);
    publish(job_);
  }
  result_.seconds = seconds();
  return result_;
}

}  // namespace salient::pipeline
