#include "pipeline/batch/base_pairing.h"

#include <fnmatch.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <system_error>

#include "common/error.h"
#include "common/hash.h"
#include "common/json.h"
#include "models/io/model_folder.h"
#include "pipeline/artifact_name.h"
#include "pipeline/batch/base_claims.h"
#include "pipeline/batch/name_words.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using Candidates = std::vector<const ListedModel*>;

fs::path absolute_path(const fs::path& path) { return fs::absolute(path).lexically_normal(); }

bool same_place(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored) && !ignored;
}

// Folders that both have in common, from the root.
size_t common_depth(const fs::path& a, const fs::path& b) {
  const fs::path first = absolute_path(a);
  const fs::path second = absolute_path(b);
  const auto [at, other] = std::mismatch(first.begin(), first.end(), second.begin(), second.end());
  return static_cast<size_t>(std::distance(first.begin(), at));
}

std::string last_part(const std::string& text) {
  const fs::path path(text);
  const fs::path last = path.has_filename() ? path.filename() : path.parent_path().filename();
  return (last.extension() == ".gguf" ? last.stem() : last).string();
}

Json config_of(const fs::path& model) {
  try {
    const fs::path file = model / "config.json";
    return fs::is_regular_file(file) ? read_json_file(file) : Json();
  } catch (const Error&) {
    return {};
  }
}

// "hidden_size is 128, that of demo 256"; "" where nothing speaks against the pair.
std::string find_difference(const ListedModel& model, const fs::path& base, const std::string& label) {
  const Json own = config_of(model.path);
  const Json other = config_of(base);
  if (!own.is_object() || !other.is_object()) return "";
  const auto number = [](const Json& config, const char* key) -> Json {
    if (config.contains(key)) return config.at(key);
    const Json text = config.value("text_config", Json());
    return text.is_object() ? text.value(key, Json()) : Json();
  };
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers"}) {
    const Json a = number(own, key);
    const Json b = number(other, key);
    if (a.is_number() && b.is_number() && a != b)
      return fmt::format("{} is {}, that of {} {}", key, dump_json(a), label, dump_json(b));
  }
  return "";
}

class Pairer {
 public:
  Pairer(const std::vector<ListedModel>& models, const PairingSources& sources) : models_(models), sources_(sources) {
    for (const ListedModel& model : models) {
      if (model.original) originals_.push_back(&model);
    }
  }

  Pairing pair(const ListedModel& model) const {
    if (const std::optional<Pairing> ruled = by_rule(model)) return *ruled;
    if (!model.wants_base) return {};
    for (const auto step : {&Pairer::by_store, &Pairer::by_metadata, &Pairer::by_claims, &Pairer::by_name, &Pairer::by_place}) {
      if (std::optional<Pairing> found = (this->*step)(model)) return checked(model, std::move(*found));
    }
    // A GGUF file of floats may be where all began.
    return {std::nullopt, "", model.original ? "" : "no base: nothing names a float model that is here"};
  }

 private:
  static Pairing alone(std::string why) { return {std::nullopt, "", std::move(why)}; }
  static Pairing with(const ListedModel& base, std::string evidence) { return {base.path, base.label, std::move(evidence)}; }

  // What the evidence names may still be another model.
  static Pairing checked(const ListedModel& model, Pairing pairing) {
    if (!pairing.base) return pairing;
    const std::string difference = find_difference(model, *pairing.base, pairing.base_label);
    return difference.empty() ? pairing
                              : alone(fmt::format("no base: {} ({}), but {}", pairing.base_label, pairing.evidence, difference));
  }

  const ListedModel* listed(const fs::path& path) const {
    const auto found =
        std::find_if(models_.begin(), models_.end(), [&](const ListedModel& model) { return same_place(model.path, path); });
    return found == models_.end() ? nullptr : &*found;
  }

  Pairing at_place(const fs::path& path, std::string evidence) const {
    const ListedModel* known = listed(path);
    return known != nullptr ? with(*known, std::move(evidence)) : Pairing{path, models::model_name(path), std::move(evidence)};
  }

  std::optional<Pairing> by_rule(const ListedModel& model) const {
    for (const BaseRule& rule : sources_.rules) {
      const auto fits = [&](const std::string& text) { return ::fnmatch(rule.pattern.c_str(), text.c_str(), 0) == 0; };
      if (rule.pattern.empty() ? !model.wants_base : !fits(model.label) && !fits(model.name)) continue;
      if (same_place(rule.base, model.path)) return Pairing{};  // the base itself
      return at_place(rule.base, "--base");
    }
    return std::nullopt;
  }

  std::optional<Pairing> by_store(const ListedModel& model) const {
    if (!sources_.recorded_base) return std::nullopt;
    const std::optional<fs::path> base = sources_.recorded_base(model.path);
    if (!base || same_place(*base, model.path)) return std::nullopt;
    return at_place(*base, "the store has the run that made it");
  }

  std::optional<Pairing> by_metadata(const ListedModel& model) const {
    const Json metadata = own_metadata(model);
    if (!metadata.is_object()) return std::nullopt;
    const Json hashes = metadata.value("source_sha256", Json());
    Candidates same;
    for (const ListedModel* candidate : originals_) {
      if (candidate != &model && hashes.is_object() && was_made_from(*candidate, hashes)) same.push_back(candidate);
    }
    if (!same.empty())
      return with(*nearest(model, same).front(), "its metadata has the hashes of these files");  // copies are alike
    const Json source = metadata.value("source", Json());
    const std::string name =
        source.is_object() && source.value("name", Json()).is_string() ? source.at("name").get<std::string>() : "";
    for (const ListedModel* candidate : originals_) {
      if (candidate != &model && !name.empty() && name_words(candidate->name) == name_words(name) && hashes.is_object()) {
        return alone(fmt::format("no base: its metadata names {}, but it was made from other files than {} has now", name,
                                 candidate->label));
      }
    }
    return std::nullopt;
  }

  // Small files first: most candidates fall out there.
  bool was_made_from(const ListedModel& candidate, const Json& hashes) const {
    if (candidate.kind != ModelKind::kCheckpoint || !sources_.file_sha256 || !hashes.contains("config.json")) return false;
    const auto agrees = [&](const std::string& name) {
      return fs::exists(candidate.path / name) && Json(sources_.file_sha256(candidate.path / name)) == hashes.at(name);
    };
    if (!agrees("config.json")) return false;
    bool weights = false;
    for (const auto& [name, hash] : hashes.items()) {
      if (!name.ends_with(".safetensors")) continue;
      if (!agrees(name)) return false;
      weights = true;
    }
    return weights;
  }

  std::optional<Pairing> by_claims(const ListedModel& model) const {
    for (const BaseClaim& claim : base_claims(model)) {
      if (std::optional<Pairing> found = by_claim(model, claim)) return found;
    }
    return std::nullopt;
  }

  std::optional<Pairing> by_claim(const ListedModel& model, const BaseClaim& claim) const {
    std::error_code ignored;
    const fs::path named(claim.text);
    for (const fs::path& place : {named, model.path / named}) {
      if (!place.is_absolute() && place == named) continue;  // of the other program's working folder
      const bool usable = fs::is_directory(place, ignored) && fs::exists(place / "config.json", ignored);
      if (usable && !same_place(place, model.path)) return at_place(place, claim.source);
    }
    Candidates fitting;
    for (const ListedModel* candidate : originals_) {
      if (candidate != &model && !name_words(candidate->name).empty() &&
          name_words(candidate->name) == name_words(last_part(claim.text)))
        fitting.push_back(candidate);
    }
    if (!fitting.empty()) return choose(model, fitting, claim.source);
    if (std::count(claim.text.begin(), claim.text.end(), '/') != 1 || claim.text.front() == '/' || claim.text.front() == '.')
      return std::nullopt;
    try {
      const fs::path cached = models::resolve_model_folder(claim.text);
      if (!same_place(cached, model.path)) return Pairing{cached, claim.text, claim.source + ", in the Hugging Face cache"};
    } catch (const Error&) {  // not on this machine
    }
    return std::nullopt;
  }

  std::optional<Pairing> by_name(const ListedModel& model) const {
    const std::vector<std::string> words = words_of(model);
    Candidates fitting;
    for (const ListedModel* candidate : originals_) {
      if (candidate != &model && !words.empty() && words_of(*candidate) == words) fitting.push_back(candidate);
    }
    if (!fitting.empty()) return choose(model, fitting, "by name");
    const std::optional<ArtifactName> parts = parse_artifact_name(model.name);
    if (!parts) return std::nullopt;
    for (const ListedModel* candidate : originals_) {
      if (candidate != &model && name_words(candidate->name) == name_words(parts->base_model)) fitting.push_back(candidate);
    }
    return fitting.empty() ? std::nullopt : choose(model, fitting, "the base model in its name");
  }

  // "model.gguf" is called by its folder.
  static std::vector<std::string> words_of(const ListedModel& model) {
    std::vector<std::string> words = model_words(model.name);
    static const std::set<std::string> kNoNames = {"model", "weights", "checkpoint", "pytorch", "final"};
    const bool says_nothing =
        std::all_of(words.begin(), words.end(), [](const std::string& word) { return kNoNames.contains(word); });
    return says_nothing ? model_words(absolute_path(model.path).parent_path().filename().string()) : words;
  }

  std::optional<Pairing> by_place(const ListedModel& model) const {
    const fs::path place = absolute_path(model.path);
    const ListedModel* innermost = nullptr;
    for (const ListedModel* candidate : originals_) {
      if (candidate == &model || candidate->kind != ModelKind::kCheckpoint) continue;
      const fs::path folder = absolute_path(candidate->path);
      const bool inside = std::mismatch(folder.begin(), folder.end(), place.begin(), place.end()).first == folder.end();
      if (inside && (innermost == nullptr || common_depth(folder, place) > common_depth(innermost->path, place)))
        innermost = candidate;
    }
    if (innermost == nullptr) return std::nullopt;
    return with(*innermost, "it lies in this model's folder");
  }

  // Safetensors before GGUF, then those that are nearest.
  static Candidates nearest(const ListedModel& model, Candidates candidates) {
    const bool checkpoints =
        std::any_of(candidates.begin(), candidates.end(), [](const auto* c) { return c->kind == ModelKind::kCheckpoint; });
    std::erase_if(candidates, [&](const auto* c) { return checkpoints && c->kind != ModelKind::kCheckpoint; });
    size_t depth = 0;
    for (const ListedModel* candidate : candidates) depth = std::max(depth, common_depth(candidate->path, model.path));
    std::erase_if(candidates, [&](const auto* c) { return common_depth(c->path, model.path) < depth; });
    return candidates;
  }

  static std::optional<Pairing> choose(const ListedModel& model, const Candidates& candidates, const std::string& evidence) {
    if (model.original &&
        std::none_of(candidates.begin(), candidates.end(), [](const auto* c) { return c->kind == ModelKind::kCheckpoint; }))
      return std::nullopt;  // two GGUF files of floats: neither is the other's base
    const Candidates left = nearest(model, candidates);
    if (left.size() == 1) return with(*left.front(), evidence);
    std::vector<std::string> labels;
    for (const ListedModel* candidate : left) labels.push_back(candidate->label);
    return alone(fmt::format("ambiguous base: {} ({}); --base NAME=MODEL says which", fmt::join(labels, ", "), evidence));
  }

  const std::vector<ListedModel>& models_;
  const PairingSources& sources_;
  Candidates originals_;
};

}  // namespace

std::vector<Pairing> pair_with_bases(const std::vector<ListedModel>& models, const PairingSources& sources) {
  const Pairer pairer(models, sources);
  std::vector<Pairing> pairings;
  for (const ListedModel& model : models) pairings.push_back(pairer.pair(model));
  return pairings;
}

}  // namespace salient::pipeline
