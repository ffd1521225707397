#include "pipeline/batch/evaluation_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/error.h"
#include "common/text.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/model_folder.h"
#include "pipeline/evaluation_records.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

std::string place_of(const fs::path& path) {
  std::error_code unknown;
  const fs::path canonical = fs::canonical(path, unknown);
  return unknown ? fs::absolute(path).lexically_normal().string() : canonical.string();
}

// What a run of this store says that the artifact at a path was made from, while that is still what it was.
std::optional<fs::path> recorded_base(Store& store, const fs::path& model) {
  const std::string path = fs::absolute(model).lexically_normal().string();
  for (const ArtifactRecord& artifact : store.list_artifacts({.name = "", .path = path, .limit = 1})) {
    const fs::path base = artifact.base_model_path;
    if (base.empty() || !fs::is_directory(base)) continue;
    try {
      if (model_hash(store, base) == artifact.base_model_hash) return base;
    } catch (const Error&) {  // not readable any more: other evidence may name it
    }
  }
  return std::nullopt;
}

class Planner {
 public:
  Planner(Store& store, const std::vector<ListedModel>& models, const BatchSettings& settings, const StoredResults& results)
      : store_(store), models_(models), settings_(settings), results_(results) {}

  std::vector<PlannedEvaluation> plan() {
    const PairingSources sources{settings_.bases, [this](const fs::path& file) { return store_.file_sha256(file); },
                                 [this](const fs::path& model) { return recorded_base(store_, model); }};
    const std::vector<Pairing> pairings = pair_with_bases(models_, sources);
    std::set<std::string> bases;
    for (const Pairing& pairing : pairings) {
      if (pairing.base) bases.insert(place_of(*pairing.base));
    }
    for (size_t i = 0; i < models_.size(); ++i) {
      PlannedEvaluation& planned = planned_.emplace_back();
      planned.model = models_[i];
      planned.pairing = pairings[i];
      planned.serves_as_base = bases.contains(place_of(models_[i].path));
    }
    order();
    for (PlannedEvaluation& planned : planned_) {
      try {
        decide(planned);
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::kCancelled) throw;
        planned.state = PlannedState::kFailed;
        planned.reason = error.message();
      }
    }
    return std::move(planned_);
  }

 private:
  // Groups of one base, by the base's place; in a group the base, then by size: small ones give first results.
  void order() {
    const auto key = [](const PlannedEvaluation& p) {
      const bool member = p.pairing.base.has_value();
      return std::tuple(place_of(member ? *p.pairing.base : p.model.path), member, p.model.detected.disk_bytes,
                        p.model.path.string());
    };
    std::sort(planned_.begin(), planned_.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  }

  void decide(PlannedEvaluation& planned) {
    planned.model_hash = model_hash(store_, planned.model.path);
    const ListedModel* base = nullptr;
    if (planned.pairing.base) {
      planned.base_hash = model_hash(store_, *planned.pairing.base);
      base = &facts_of(*planned.pairing.base);
    }
    // A copy of the base beside the base says nothing new either.
    const auto [known, is_new] = labels_.try_emplace({planned.model_hash, planned.base_hash}, planned.model.label);
    if (!is_new) {
      planned.state = PlannedState::kSkipped;
      planned.reason = "the same files as " + known->second;
      return;
    }
    planned.memory = memory_need(planned.model, base, settings_);
    find_missing(planned);
    if (planned.state == PlannedState::kEvaluate && settings_.memory) {
      planned.reason = why_too_large(planned.memory, *settings_.memory);
      if (!planned.reason.empty()) planned.state = PlannedState::kSkipped;
    }
  }

  void find_missing(PlannedEvaluation& planned) const {
    const ResultKey key = result_key(settings_, planned.model, planned.pairing.base, planned.model_hash, planned.base_hash);
    std::vector<std::string> broken;
    for (size_t i = 0; i < settings_.requests.size(); ++i) {
      const std::optional<StoredTasks> stored = settings_.fresh ? std::nullopt : results_.find(key, i);
      if (!stored) {
        planned.missing.push_back(i);
        continue;
      }
      for (const Json& task : stored->model) {
        for (const Json& flag : task.value("flags", Json::array())) {
          if (flag.value("kind", "") == "nan_logits")
            broken.push_back(fmt::format("{}: {}", task.value("task", ""), flag.value("text", "")));
        }
      }
    }
    planned.throughput = settings_.options.throughput && (settings_.fresh || !results_.find_throughput(key));
    if (!planned.missing.empty() || planned.throughput) return;
    planned.state = broken.empty() ? PlannedState::kUpToDate : PlannedState::kFailed;
    if (!broken.empty()) planned.reason = fmt::format("evaluated before: {}", fmt::join(broken, "; "));
  }

  const ListedModel& facts_of(const fs::path& base) {
    for (const ListedModel& model : models_) {
      if (place_of(model.path) == place_of(base)) return model;
    }
    const auto found = outside_.find(place_of(base));
    if (found != outside_.end()) return found->second;
    ListedModel model;
    model.path = base;
    model.label = model.name = models::model_name(base);
    model.kind = models::find_gguf_model(base)      ? ModelKind::kGguf
                 : fs::exists(base / "config.json") ? ModelKind::kCheckpoint
                                                    : ModelKind::kTorchscript;
    model.detected = models::detect_model(base);
    model.original = true;
    return outside_.emplace(place_of(base), std::move(model)).first->second;
  }

  Store& store_;
  const std::vector<ListedModel>& models_;
  const BatchSettings& settings_;
  const StoredResults& results_;
  std::vector<PlannedEvaluation> planned_;
  std::map<std::pair<std::string, std::string>, std::string> labels_;  // hashes of model and base -> who has them
  std::map<std::string, ListedModel> outside_;
};

}  // namespace

std::string_view to_string(PlannedState state) {
  switch (state) {
    case PlannedState::kEvaluate: return "evaluate";
    case PlannedState::kUpToDate: return "up to date";
    case PlannedState::kSkipped: return "skipped";
    case PlannedState::kFailed: return "failed";
  }
  fail(ErrorKind::kInternal, "PlannedState {} has no name", static_cast<int>(state));
}

std::vector<PlannedEvaluation> plan_evaluations(Store& store, const std::vector<ListedModel>& models, const BatchSettings& settings,
                                                const StoredResults& results) {
  return Planner(store, models, settings, results).plan();
}

std::string why_too_large(const MemoryNeed& need, uint64_t limit) {
  if (need.total() <= limit) return "";
  const std::string base = need.base > 0 ? fmt::format(", base {}", human_bytes(need.base)) : "";
  return fmt::format("needs {} of memory (model {}{}, work {}), {} may be used", human_bytes(need.total()), human_bytes(need.model),
                     base, human_bytes(need.work), human_bytes(limit));
}

std::vector<std::string> evaluation_command(const PlannedEvaluation& planned, const BatchSettings& settings,
                                            const std::vector<std::string>& words) {
  std::vector<std::string> command = {"eval", planned.model.path.string()};
  if (planned.pairing.base) command.insert(command.end(), {"--compare-with", planned.pairing.base->string()});
  std::vector<std::string> tasks;
  for (const size_t i : planned.missing) tasks.push_back(settings.requests[i].task);
  if (!tasks.empty()) command.insert(command.end(), {"--tasks", fmt::format("{}", fmt::join(tasks, ","))});
  command.insert(command.end(), words.begin(), words.end());
  if (!planned.throughput) command.emplace_back("--no-throughput");
  const models::DecoderOptions bits = model_options(settings, planned.model).decoder;
  if (bits.activation_bits) command.insert(command.end(), {"--activation-bits", std::to_string(*bits.activation_bits)});
  if (bits.kv_bits) command.insert(command.end(), {"--kv-bits", std::to_string(*bits.kv_bits)});
  return command;
}

}  // namespace salient::pipeline
