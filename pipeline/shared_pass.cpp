#include "pipeline/shared_pass.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>

#include "common/checksum.h"
#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/json.h"
#include "common/memory.h"
#include "models/decoder/mlp.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/quantize_work.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kProgressFile = "pass.json";

bool same_rows(const at::Tensor& a, const at::Tensor& b, int64_t begin, int64_t count) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || a.narrow(0, begin, count).equal(b.narrow(0, begin, count));
}

// Batches from the first on that have the same tokens, counted alike.
int64_t common_batches(const CalibrationPass& a, const CalibrationPass& b) {
  if (a.width() != b.width() || a.rows_of_batch() != b.rows_of_batch() || a.holds_back() != b.holds_back()) return 0;
  int64_t index = 0;
  for (; index < std::min(a.batches(), b.batches()); ++index) {
    const int64_t begin = index * a.rows_of_batch();
    const int64_t count = std::min(a.rows_of_batch(), a.rows() - begin);
    if (count != std::min(b.rows_of_batch(), b.rows() - begin)) break;
    const calibration::TokenBlocks& left = a.tokens();
    const calibration::TokenBlocks& right = b.tokens();
    if (!same_rows(left.ids, right.ids, begin, count) || !same_rows(left.lengths, right.lengths, begin, count) ||
        !same_rows(left.mask, right.mask, begin, count))
      break;
  }
  return index;
}

std::string fingerprint_of(const std::string& source, const std::vector<const CalibrationPass*>& sets) {
  Json json = {{"version", SALIENT_VERSION}, {"source", source}};
  for (const CalibrationPass* set : sets) {
    const calibration::TokenBlocks& tokens = set->tokens();
    json["sets"].push_back({hash_tensor(tokens.ids), hash_tensor(tokens.lengths),
                            tokens.mask.defined() ? hash_tensor(tokens.mask) : "", set->rows_of_batch(), set->holds_back(),
                            set->device().str()});
  }
  return sha256_hex(dump_json(json));
}

// Statistics of a set while it is run; nothing where they are not wanted.
class Measurement {
 public:
  explicit Measurement(bool wanted) : wanted_(wanted) {}

  // Runs a batch; returns the block's output, undefined where it is not needed.
  at::Tensor run(const CalibrationPass& pass, const models::BlockWeights& weights, int64_t block,
                 const CalibrationPass::Batch& batch, const at::Tensor& input, bool needs_output) {
    const models::BlockObserver observe = [&](models::InputId id, const at::Tensor& x) {
      if (wanted_) add_statistics(statistics_[id], x, batch);
    };
    const models::AttentionCall call = pass.call(weights, block, observe);
    const models::AttentionHalf half = models::attention_half(call, input.to(pass.device()));
    return_free_memory();  // what the MLP needs does not fit where attention's activations were
    if (!needs_output) {
      models::observe_mlp(call, half.mlp_input);
      return {};
    }
    return models::finish_block(call, half.residual, models::mlp_half(call, half.mlp_input));
  }

  // What was measured so far, to go on with separately.
  Measurement fork(bool wanted) const {
    Measurement result(wanted);
    if (!wanted) return result;
    for (const auto& [id, statistics] : statistics_) result.statistics_[id] = quant::clone(statistics);
    return result;
  }

  BlockStatistics finish() {
    for (auto& [id, statistics] : statistics_) finish_statistics(statistics);
    return std::move(statistics_);
  }

 private:
  bool wanted_;
  BlockStatistics statistics_;
};

}  // namespace

std::vector<int64_t> SharedPass::Track::file_shape(int64_t hidden_size) const {
  return {pass->rows() - shared_rows(), pass->width(), hidden_size};
}

SharedPass::SharedPass(fs::path folder, const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                       const std::string& source, std::vector<const CalibrationPass*> sets)
    : folder_(std::move(folder)), checkpoint_(checkpoint), config_(config), fingerprint_(fingerprint_of(source, sets)) {
  fs::create_directories(folder_);
  std::vector<size_t> order(sets.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sets[a]->rows() > sets[b]->rows(); });
  tracks_.resize(sets.size());
  std::vector<size_t> leaders;
  for (const size_t set : order) {
    Track& track = tracks_[set];
    track.pass = sets[set];
    track.leader = set;
    for (const size_t leader : leaders) {
      const int64_t shared = common_batches(*sets[leader], *sets[set]);
      if (shared <= track.shared) continue;
      track.leader = leader;
      track.shared = shared;
    }
    if (track.leader == set) leaders.push_back(set);
  }
  const fs::path progress = folder_ / kProgressFile;
  if (fs::exists(progress)) {
    try {
      const Json json = read_json_file(progress);
      const auto block = require<int64_t>(json, "next_block", progress.string());
      if (has_own_checksum(json) && require<std::string>(json, "fingerprint", progress.string()) == fingerprint_) {
        next_block_ = block;
        if (file_checksums() == require<Json>(json, "files", progress.string())) return;
      }
    } catch (const Error&) {  // damaged or incomplete: from the beginning
    }
  }
  restart();
}

fs::path SharedPass::file_of(size_t set, int64_t block) const { return folder_ / fmt::format("hidden_{}_{}.bin", set, block); }

ActivationFile SharedPass::open_file(size_t set, int64_t block) const {
  return ActivationFile::open(file_of(set, block), tracks_[set].file_shape(config_.hidden_size));
}

void SharedPass::save() const {
  for (size_t set = 0; set < tracks_.size(); ++set) open_file(set, next_block_).sync();
  write_file(
      folder_ / kProgressFile,
      dump_json(with_own_checksum({{"fingerprint", fingerprint_}, {"next_block", next_block_}, {"files", file_checksums()}})));
}

Json SharedPass::file_checksums() const {
  Json checksums = Json::array();
  for (size_t set = 0; set < tracks_.size(); ++set) checksums.push_back(checksum_text(checksum_of_file(file_of(set, next_block_))));
  return checksums;
}

void SharedPass::restart() {
  for (const auto& entry : fs::directory_iterator(folder_)) fs::remove_all(entry.path());
  next_block_ = 0;
  for (size_t set = 0; set < tracks_.size(); ++set) {
    const Track& track = tracks_[set];
    ActivationFile hidden = ActivationFile::create(file_of(set, 0), track.file_shape(config_.hidden_size));
    const at::Tensor ids = track.pass->tokens().ids;
    embed_tokens(checkpoint_, config_, ids.narrow(0, track.shared_rows(), ids.size(0) - track.shared_rows()),
                 track.pass->rows_of_batch(), hidden);
  }
  save();
}

RowReader SharedPass::reader(size_t set) const {
  const Track& track = tracks_[set];
  const auto own = std::make_shared<ActivationFile>(open_file(set, next_block_));
  if (track.shared == 0) return [own](int64_t begin, int64_t count) { return own->read(begin, count); };
  const auto leader = std::make_shared<ActivationFile>(open_file(track.leader, next_block_));
  return [own, leader, first = track.shared_rows()](int64_t begin, int64_t count) {  // batches never lie in both
    return begin >= first ? own->read(begin - first, count) : leader->read(begin, count);
  };
}

void SharedPass::run_block(const std::vector<bool>& wanted, bool needs_output, const Visit& visit) {
  const int64_t block = next_block_;
  const models::BlockWeights weights = models::load_block(checkpoint_, config_, block, at::kFloat, at::kCPU);
  for (size_t set = 0; needs_output && set < tracks_.size(); ++set)
    ActivationFile::create(file_of(set, block + 1), tracks_[set].file_shape(config_.hidden_size));
  for (size_t leader = 0; leader < tracks_.size(); ++leader) {
    if (tracks_[leader].leader != leader) continue;
    const CalibrationPass& pass = *tracks_[leader].pass;
    const models::BlockWeights moved = models::to_device(weights, pass.device());
    std::multimap<int64_t, size_t> ends;  // after so many batches of the leader, this set goes on by itself
    bool any = false;
    for (size_t set = 0; set < tracks_.size(); ++set) {
      if (tracks_[set].leader != leader) continue;
      any = any || wanted[set];
      if (set != leader) ends.emplace(tracks_[set].shared, set);
    }
    Measurement measurement(any);
    // The batches of `set` from `first` on; outputs go to its file.
    const auto run = [&](Measurement& into, size_t set, int64_t first, int64_t end) {
      const Track& track = tracks_[set];
      const RowReader read = reader(set);
      std::optional<ActivationFile> output;
      if (needs_output) output = ActivationFile::open(file_of(set, block + 1), track.file_shape(config_.hidden_size));
      for (int64_t index = first; index < end; ++index) {
        const CalibrationPass::Batch batch = track.pass->batch(index);
        const at::Tensor out = into.run(*track.pass, moved, block, batch, read(batch.begin, batch.count), needs_output);
        if (output) output->write(batch.begin - track.shared_rows(), out);
      }
    };
    const auto finish = [&](Measurement& done, size_t set) {
      return_free_memory();
      if (wanted[set]) visit(set, {weights, done.finish(), reader(set)});
    };
    int64_t done = 0;
    for (const auto& [at, set] : ends) {
      run(measurement, leader, done, at);
      done = at;
      Measurement forked = measurement.fork(wanted[set]);
      run(forked, set, at, tracks_[set].pass->batches());
      finish(forked, set);
    }
    run(measurement, leader, done, pass.batches());
    finish(measurement, leader);
  }
  if (!needs_output) return;
  ++next_block_;
  save();
  for (size_t set = 0; set < tracks_.size(); ++set) fs::remove(file_of(set, block));
}

int64_t SharedPass::batches_run() const {
  int64_t count = 0;
  for (const Track& track : tracks_) count += track.pass->batches() - track.shared;
  return count;
}

int64_t SharedPass::batches_of_all() const {
  int64_t count = 0;
  for (const Track& track : tracks_) count += track.pass->batches();
  return count;
}

}  // namespace salient::pipeline
