#include "eval/likelihood_journal.h"

#include <optional>

#include "common/json.h"

namespace salient::eval {
namespace {

std::string text_of(const std::vector<Likelihood>& likelihoods) {
  Json list = Json::array();
  for (const Likelihood& one : likelihoods) list.push_back({one.log_prob, one.is_greedy, one.tokens});
  return dump_json(list);
}

// Nothing where it is not that of `count` requests.
std::optional<std::vector<Likelihood>> parse(const std::string& text, size_t count) {
  const Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array() || list.size() != count) return std::nullopt;
  std::vector<Likelihood> out;
  for (const Json& one : list) {
    if (!one.is_array() || one.size() != 3 || !one[0].is_number() || !one[1].is_boolean() || !one[2].is_number_integer())
      return std::nullopt;
    out.push_back({one[0].get<double>(), one[1].get<bool>(), one[2].get<int64_t>()});
  }
  return out;
}

}  // namespace

std::vector<size_t> requests_of(const ScoredInputs& scored, std::span<const size_t> inputs) {
  std::vector<size_t> requests;
  for (const size_t input : inputs) requests.insert(requests.end(), scored.requests[input].begin(), scored.requests[input].end());
  return requests;
}

void LikelihoodJournal::add_requests(JournalKey& key, size_t input) const {
  key.add(static_cast<int64_t>(scored_.requests[input].size()));
  for (const size_t request : scored_.requests[input]) key.add(scored_.continuations[request]);
}

bool LikelihoodJournal::read(std::span<const LikelihoodUnit> units, std::vector<Likelihood>& out) const {
  if (journal_ == nullptr) return false;
  for (const LikelihoodUnit& unit : units) {
    const std::vector<size_t> requests = requests_of(scored_, unit.inputs);
    const auto text = journal_->find(unit.key);
    const auto known = text ? parse(*text, requests.size()) : std::nullopt;
    if (!known) return false;
    for (size_t i = 0; i < requests.size(); ++i) out[requests[i]] = (*known)[i];
  }
  return true;
}

void LikelihoodJournal::write(std::span<const LikelihoodUnit> units, const std::vector<Likelihood>& likelihoods) const {
  if (journal_ == nullptr) return;
  std::vector<JournalEntry> entries;
  for (const LikelihoodUnit& unit : units) {
    std::vector<Likelihood> values;
    for (const size_t request : requests_of(scored_, unit.inputs)) values.push_back(likelihoods[request]);
    entries.push_back({unit.key, text_of(values)});
  }
  journal_->add(entries);
}

}  // namespace salient::eval
