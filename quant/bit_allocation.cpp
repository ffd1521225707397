#include "quant/bit_allocation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "common/error.h"

namespace salient::quant {
namespace {

// Units of budget that the table may have: its memory is one byte for each unit and item.
constexpr int64_t kMostUnits = int64_t{1} << 16;

// Candidates that share their bits, as one.
struct Item {
  std::vector<size_t> members;
  int64_t weights = 0;
  std::vector<BitChoice> choices;  // by bits, ascending
};

const BitChoice* find_bits(const BitCandidate& candidate, int bits) {
  for (const BitChoice& choice : candidate.choices) {
    if (choice.bits == bits && std::isfinite(choice.error * candidate.importance)) return &choice;
  }
  return nullptr;
}

std::vector<BitChoice> common_choices(const std::vector<BitCandidate>& candidates, const std::vector<size_t>& members) {
  std::map<int, double> sums;
  for (const BitChoice& choice : candidates[members.front()].choices) sums[choice.bits] = 0.0;
  for (const size_t member : members) {
    std::erase_if(sums, [&](const auto& entry) { return find_bits(candidates[member], entry.first) == nullptr; });
    for (auto& [bits, error] : sums) error += candidates[member].importance * find_bits(candidates[member], bits)->error;
  }
  std::vector<BitChoice> result;
  for (const auto& [bits, error] : sums) result.push_back({bits, error});
  return result;
}

std::vector<Item> make_items(const std::vector<BitCandidate>& candidates) {
  std::vector<Item> items;
  std::map<int64_t, size_t> of_shared;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const BitCandidate& candidate = candidates[i];
    if (candidate.weights <= 0)
      fail(ErrorKind::kInvalidArgument, "bit allocation: {} has {} weights", candidate.name, candidate.weights);
    const auto found = candidate.shared < 0 ? of_shared.end() : of_shared.find(candidate.shared);
    if (found != of_shared.end()) {
      items[found->second].members.push_back(i);
      items[found->second].weights += candidate.weights;
      continue;
    }
    if (candidate.shared >= 0) of_shared[candidate.shared] = items.size();
    items.push_back({{i}, candidate.weights, {}});
  }
  for (Item& item : items) {
    item.choices = common_choices(candidates, item.members);
    if (item.choices.empty()) {
      fail(ErrorKind::kInvalidArgument, "bit allocation: {}{} {} no bits with a finite error{}",
           candidates[item.members.front()].name, item.members.size() > 1 ? " and the modules that share its bits" : "",
           item.members.size() > 1 ? "have" : "has", item.members.size() > 1 ? " in common" : "");
    }
  }
  return items;
}

int64_t cost(const Item& item, size_t choice) { return item.weights * item.choices[choice].bits; }
int64_t extra_cost(const Item& item, size_t choice) { return cost(item, choice) - cost(item, 0); }

int64_t in_units(int64_t amount, int64_t unit) { return (amount + unit - 1) / unit; }

// The choice of each item with the least sum of errors whose extra costs sum to `spare` at most. Costs are counted in units,
// rounded up: so that more units are tried than `spare` holds, and the largest number whose choices really fit is taken.
std::vector<size_t> solve(const std::vector<Item>& items, int64_t spare, int64_t unit) {
  const bool rounds = std::any_of(items.begin(), items.end(), [&](const Item& item) { return item.weights % unit != 0; });
  const int64_t least = spare / unit;
  const auto states = static_cast<size_t>(least) + (rounds ? items.size() : 0) + 1;
  std::vector<double> best(states, 0.0);  // least error of the items so far by units spent at most
  std::vector<double> next(states);
  std::vector<std::vector<uint8_t>> taken;
  for (const Item& item : items) {
    std::vector<uint8_t> choice_at(states, 0);
    for (size_t state = 0; state < states; ++state) next[state] = best[state] + item.choices[0].error;
    for (size_t choice = 1; choice < item.choices.size(); ++choice) {
      const auto units = static_cast<size_t>(in_units(extra_cost(item, choice), unit));
      for (size_t state = units; state < states; ++state) {
        const double error = best[state - units] + item.choices[choice].error;
        if (error < next[state]) {
          next[state] = error;
          choice_at[state] = static_cast<uint8_t>(choice);
        }
      }
    }
    best.swap(next);
    taken.push_back(std::move(choice_at));
  }
  std::vector<size_t> result(items.size());
  for (size_t last = states; last-- > 0;) {
    size_t state = last;
    int64_t spent = 0;
    for (size_t i = items.size(); i-- > 0;) {
      result[i] = taken[i][state];
      const int64_t extra = extra_cost(items[i], result[i]);
      state -= static_cast<size_t>(in_units(extra, unit));
      spent += extra;
    }
    if (spent <= spare) break;  // at the latest with the units that `spare` holds
  }
  return result;
}

// Gives what is left of the budget to the changes that gain most for their cost, as long as one fits.
void spend_rest(const std::vector<Item>& items, int64_t spare, std::vector<size_t>& choices) {
  for (size_t i = 0; i < items.size(); ++i) spare -= extra_cost(items[i], choices[i]);
  while (true) {
    double best_rate = 0.0;
    size_t best_item = items.size();
    size_t best_choice = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      for (size_t choice = choices[i] + 1; choice < items[i].choices.size(); ++choice) {
        const int64_t price = cost(items[i], choice) - cost(items[i], choices[i]);
        const double rate = (items[i].choices[choices[i]].error - items[i].choices[choice].error) / static_cast<double>(price);
        if (price > spare || !(rate > best_rate)) continue;
        best_rate = rate;
        best_item = i;
        best_choice = choice;
      }
    }
    if (best_item == items.size()) return;
    spare -= cost(items[best_item], best_choice) - cost(items[best_item], choices[best_item]);
    choices[best_item] = best_choice;
  }
}

}  // namespace

BitAllocation allocate_bits(const std::vector<BitCandidate>& candidates, double target_bits) {
  const std::vector<Item> items = make_items(candidates);
  int64_t weights = 0;
  int64_t least = 0;
  int64_t most = 0;
  int64_t unit = 0;
  for (const Item& item : items) {
    weights += item.weights;
    least += cost(item, 0);
    most += cost(item, item.choices.size() - 1);
    unit = std::gcd(unit, item.weights);
  }
  if (unit == 0) fail(ErrorKind::kInvalidArgument, "bit allocation: there is no module with weights to choose bits for");
  const double total = static_cast<double>(weights);
  // One part in 10^12: 3.3 * weights must not miss by a bit what 3.3 bits allow.
  const double budget = std::floor(target_bits * total * (1.0 + 1e-12));
  if (!(budget >= static_cast<double>(least)) || target_bits * (1.0 - 1e-12) > static_cast<double>(most) / total) {
    fail(ErrorKind::kInvalidArgument, "target_bits {}: the modules' choices of bits reach from {:.4g} to {:.4g} bits per weight",
         target_bits, static_cast<double>(least) / total, static_cast<double>(most) / total);
  }
  const int64_t spare = static_cast<int64_t>(budget) - least;
  const bool exact = spare / unit < kMostUnits;
  std::vector<size_t> choices = solve(items, spare, exact ? unit : (spare + kMostUnits - 1) / kMostUnits);
  if (!exact) spend_rest(items, spare, choices);

  BitAllocation result;
  result.bits.resize(candidates.size());
  int64_t spent = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const BitChoice& choice = items[i].choices[choices[i]];
    for (const size_t member : items[i].members) result.bits[member] = choice.bits;
    spent += cost(items[i], choices[i]);
    result.error += choice.error;
  }
  result.mean_bits = static_cast<double>(spent) / total;
  return result;
}

}  // namespace salient::quant
