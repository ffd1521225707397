#include "models/io/model_folder.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "models/gguf/gguf_summary.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kCachePrefix = "models--";
constexpr size_t kSuggestions = 3;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path expand_home(const std::string& path) {
  if (path == "~" || path.starts_with("~/")) return fs::path(environment("HOME") + path.substr(1));
  return path;
}

struct RepositoryName {
  std::string id;        // "org/name"
  std::string revision;  // empty when not given
};

// Hub names: "name" or "org/name" of letters, digits, "-", "_", "."; "--" and ".." are not allowed in them.
std::optional<RepositoryName> parse_repository(const std::string& text) {
  const size_t at = text.find('@');
  RepositoryName name{text.substr(0, at), at == std::string::npos ? "" : text.substr(at + 1)};
  if (at != std::string::npos && (name.revision.empty() || name.revision.front() == '/')) return std::nullopt;
  if (name.revision.find("..") != std::string::npos) return std::nullopt;
  if (std::count(name.id.begin(), name.id.end(), '/') > 1) return std::nullopt;
  const std::string& id = name.id;
  if (id.find("--") != std::string::npos || id.find("..") != std::string::npos) return std::nullopt;
  for (size_t begin = 0; begin <= id.size();) {
    const size_t end = std::min(id.find('/', begin), id.size());
    const std::string part = id.substr(begin, end - begin);
    const auto is_name_character = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
    if (part.empty() || part.front() == '.' || part.front() == '-' || !std::all_of(part.begin(), part.end(), is_name_character)) {
      return std::nullopt;
    }
    begin = end + 1;
  }
  return name;
}

fs::path cache_folder_of(const fs::path& cache, const std::string& id) {
  std::string name(kCachePrefix);
  for (const char c : id) name += c == '/' ? std::string("--") : std::string(1, c);
  return cache / name;
}

std::vector<std::string> entry_names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;  // a folder that cannot be listed has no suggestions to give
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> cached_models(const fs::path& cache) {
  std::vector<std::string> ids;
  for (std::string name : entry_names(cache)) {
    if (!name.starts_with(kCachePrefix)) continue;
    name.erase(0, kCachePrefix.size());
    if (const size_t split = name.find("--"); split != std::string::npos) name.replace(split, 2, "/");
    ids.push_back(name);
  }
  return ids;
}

// At most kSuggestions candidates, nearest first; the part after "org/" alone may also be near.
std::vector<std::string> near_names(const std::string& wanted, const std::vector<std::string>& candidates) {
  const auto last_part = [](const std::string& id) { return to_lower(id.substr(id.find('/') + 1)); };
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& candidate : candidates) {
    const size_t distance =
        std::min(edit_distance(to_lower(wanted), to_lower(candidate)), edit_distance(last_part(wanted), last_part(candidate)));
    if (distance <= std::max<size_t>(2, last_part(wanted).size() / 3)) ranked.emplace_back(distance, candidate);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(kSuggestions, ranked.size()); ++i) names.push_back(ranked[i].second);
  return names;
}

std::string near_text(const std::vector<std::string>& names) {
  return names.empty() ? "" : fmt::format("; near names there: {}", fmt::join(names, ", "));
}

// What stands beside a path that is not there.
std::vector<std::string> near_paths(const fs::path& path) {
  return near_names(path.filename().string(), entry_names(fs::absolute(path).lexically_normal().parent_path()));
}

// `beside`: near names in the folder where it would be if it was a path.
[[noreturn]] void fail_not_cached(const RepositoryName& repository, const std::string& what,
                                  const std::vector<std::string>& beside = {}) {
  const std::string revision = repository.revision.empty() ? "" : " --revision " + repository.revision;
  const std::string meant = beside.empty() ? "" : fmt::format("did you mean {}? else ", list_choices(beside));
  throw Error(ErrorKind::kNotFound, what)
      .with_hint(
          fmt::format("{}download it first: hf download {}{}  (nothing is downloaded here)", meant, repository.id, revision));
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

fs::path snapshot_of(const RepositoryName& repository, const fs::path& folder) {
  const std::string revision = repository.revision.empty() ? "main" : repository.revision;
  const fs::path reference = folder / "refs" / revision;
  std::string commit;
  if (fs::is_regular_file(reference)) {
    commit = trimmed(read_text_file(reference));
    if (commit.empty() || commit.find('/') != std::string::npos || commit.front() == '.') {
      fail(ErrorKind::kCorruption, "{}: expected a commit id, found \"{}\"", reference.string(), commit.substr(0, 80));
    }
  } else {
    commit = revision;  // a commit id is the name of its snapshot; its beginning is enough when only one starts so
    std::vector<std::string> matches;
    if (repository.revision.size() >= 7) {
      for (const std::string& name : entry_names(folder / "snapshots")) {
        if (name.starts_with(repository.revision)) matches.push_back(name);
      }
    }
    if (matches.size() == 1) commit = matches.front();
  }
  const fs::path snapshot = folder / "snapshots" / commit;
  if (fs::is_directory(snapshot) && !fs::is_empty(snapshot)) return snapshot;
  const auto references = entry_names(folder / "refs");
  const auto snapshots = entry_names(folder / "snapshots");
  fail_not_cached(repository,
                  fmt::format("model '{}': {} is in the cache without the files of revision '{}' (looked for {}); refs there: {}; "
                              "snapshots there: {}",
                              repository.id, folder.string(), revision, snapshot.string(),
                              references.empty() ? "none" : fmt::format("{}", fmt::join(references, ", ")),
                              snapshots.empty() ? "none" : fmt::format("{}", fmt::join(snapshots, ", "))));
}

}  // namespace

fs::path hugging_face_cache() {
  if (const std::string cache = environment("HF_HUB_CACHE"); !cache.empty()) return expand_home(cache);
  if (const std::string home = environment("HF_HOME"); !home.empty()) return expand_home(home) / "hub";
  if (const std::string xdg = environment("XDG_CACHE_HOME"); !xdg.empty()) return expand_home(xdg) / "huggingface" / "hub";
  return expand_home("~/.cache/huggingface/hub");
}

fs::path resolve_model_folder(const std::string& name_or_path) {
  if (name_or_path.empty()) fail(ErrorKind::kInvalidArgument, "the model's name is empty, expected a folder or org/name");
  std::error_code ignored;
  if (fs::is_directory(name_or_path, ignored)) return name_or_path;
  if (fs::exists(name_or_path, ignored)) {
    if (find_gguf_model(name_or_path)) {
      throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: is a GGUF file, expected the model's folder", name_or_path))
          .with_hint(
              "give the float checkpoint that it was made from; where there is none, salient export --format float makes a folder "
              "of the file");
    }
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: is a file, expected the model's folder", name_or_path))
        .with_hint(fmt::format("give the folder: {}", fs::absolute(name_or_path).parent_path().string()));
  }

  const auto repository = parse_repository(name_or_path);
  if (!repository) {
    throw Error(ErrorKind::kNotFound, fmt::format("{}: no such folder{}", name_or_path, near_text(near_paths(name_or_path))))
        .with_hint("give a folder with config.json and safetensors files, or org/name of a model in the Hugging Face cache");
  }
  const fs::path cache = hugging_face_cache();
  const fs::path folder = cache_folder_of(cache, repository->id);
  if (!fs::is_directory(folder, ignored)) {
    fail_not_cached(*repository,
                    fmt::format("model '{}': no folder {}, and nothing in the Hugging Face cache at {}{}", name_or_path,
                                fs::absolute(name_or_path).string(), folder.string(),
                                near_text(near_names(repository->id, cached_models(cache)))),
                    near_paths(name_or_path));
  }
  return snapshot_of(*repository, folder);
}

fs::path resolve_model(const std::string& name_or_path) {
  std::error_code ignored;
  return fs::is_regular_file(name_or_path, ignored) ? fs::path(name_or_path) : resolve_model_folder(name_or_path);
}

std::string model_name(const fs::path& path) {
  const fs::path absolute = fs::absolute(path).lexically_normal();
  const fs::path last = absolute.has_filename() ? absolute.filename() : absolute.parent_path().filename();
  return (last.extension() == ".gguf" ? last.stem() : last).string();
}

}  // namespace salient::models
