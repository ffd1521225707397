#include "pipeline/quantize_family.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <memory>

#include "common/error.h"
#include "common/hash.h"
#include "pipeline/quantize_checks.h"
#include "pipeline/quantize_session.h"
#include "pipeline/shared_pass.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

struct Member {
  std::unique_ptr<QuantizeSession> session;  // stays, as the pass reads its batches; null where it could not begin
  FamilyOutcome outcome;
  size_t set = 0;  // of the pass

  bool works() const { return session && !outcome.result && !outcome.error; }
};

template <typename Work>
void attempt(Member& member, const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    member.outcome.error = std::current_exception();
  }
}

void open(Member& member, const FamilyMember& given) {
  QuantizeModelOptions options = given.options;
  options.on_progress = {};
  check_quantization(options);
  auto session = std::make_unique<QuantizeSession>(options, *given.tokens, HiddenStates::kShared);
  if (session->finished()) {
    member.outcome.result = session->finish();
    return;
  }
  if (const std::string why = why_not_shared(session->work().config, session->work().options.awq); !why.empty())
    fail(ErrorKind::kInternal, "{}: cannot share a float pass: {}", options.output.string(), why);
  member.session = std::move(session);
}

bool same_set(const CalibrationPass& a, const CalibrationPass& b) {
  const auto equal = [](const at::Tensor& left, const at::Tensor& right) {
    return left.defined() == right.defined() && (!left.defined() || left.equal(right));
  };
  const calibration::TokenBlocks& left = a.tokens();
  const calibration::TokenBlocks& right = b.tokens();
  return a.rows_of_batch() == b.rows_of_batch() && a.holds_back() == b.holds_back() &&
         (&left == &right || (equal(left.ids, right.ids) && equal(left.lengths, right.lengths) && equal(left.mask, right.mask)));
}

// The sets of the members' tokens; each member learns which is its own.
std::vector<const CalibrationPass*> find_sets(const std::vector<Member*>& members) {
  std::vector<const CalibrationPass*> sets;
  for (Member* member : members) {
    const CalibrationPass& pass = member->session->pass();
    const auto found = std::find_if(sets.begin(), sets.end(), [&](const CalibrationPass* set) { return same_set(*set, pass); });
    member->set = static_cast<size_t>(found - sets.begin());
    if (found == sets.end()) sets.push_back(&pass);
  }
  return sets;
}

int64_t batches_alone(const std::vector<Member*>& members) {
  int64_t count = 0;
  for (const Member* member : members) count += member->session->pass().batches();
  return count;
}

// Members that read the same float model: formats may want its MLP padded. `report`: called after each block of a member.
void run_group(const std::vector<Member*>& members, const fs::path& folder, const FamilyOptions& options,
               const std::function<void()>& report) {
  const QuantizeWork& work = members.front()->session->work();
  const std::vector<const CalibrationPass*> sets = find_sets(members);
  SharedPass pass(folder, work.checkpoint, work.config, sha256_hex(dump_json(work.source_hashes)), sets);
  if (options.on_message) {
    options.on_message(fmt::format("{} quantizations on one pass of the float model: {} batches through each block instead of {}",
                                   members.size(), pass.batches_run(), batches_alone(members)));
  }
  const bool reads_last =
      std::any_of(members.begin(), members.end(), [](const Member* m) { return m->session->needs_last_output(); });
  for (const Member* member : members) {
    if (member->session->blocks_done() < pass.next_block()) {  // a new one among those of an earlier call
      pass.restart();
      break;
    }
  }
  for (int64_t block = pass.next_block(); block < work.blocks(); ++block) {
    std::vector<bool> wanted(sets.size(), false);
    for (const Member* member : members) {
      if (member->works() && member->session->blocks_done() == block) wanted[member->set] = true;
    }
    pass.run_block(wanted, reads_last || block + 1 < work.blocks(), [&](size_t set, const MeasuredBlock& measured) {
      for (Member* member : members) {
        if (member->set != set || !member->works() || member->session->blocks_done() != block) continue;
        attempt(*member, [&] { member->session->run_block(measured); });
        report();
      }
    });
  }
  for (Member* member : members) {
    if (!member->works()) continue;
    const RowReader last = member->session->needs_last_output() ? pass.reader(member->set) : RowReader();
    attempt(*member, [&] { member->outcome.result = member->session->finish(last); });
  }
}

}  // namespace

std::vector<FamilyOutcome> quantize_family(const std::vector<FamilyMember>& given, const FamilyOptions& options) {
  const at::NoGradGuard no_grad;
  std::vector<Member> members(given.size());
  for (size_t i = 0; i < given.size(); ++i) attempt(members[i], [&] { open(members[i], given[i]); });

  std::map<std::vector<std::string>, std::vector<Member*>> groups;
  for (Member& member : members) {
    if (member.works()) groups[member.session->work().padding_notes].push_back(&member);
  }
  const auto report = [&] {
    if (!options.on_progress) return;
    int64_t done = 0;
    int64_t total = 0;
    for (const Member& member : members) {
      if (!member.session) continue;
      total += member.session->work().blocks();
      done += member.outcome.error ? member.session->work().blocks() : member.session->blocks_done();
    }
    options.on_progress(done, total);
  };
  report();
  size_t number = 0;
  for (const auto& [padding, group] : groups) run_group(group, options.folder / std::to_string(number++), options, report);

  std::vector<FamilyOutcome> outcomes;
  bool all_done = true;
  for (Member& member : members) {
    all_done = all_done && member.outcome.result.has_value();
    outcomes.push_back(std::move(member.outcome));
  }
  std::error_code ignored;
  if (all_done) fs::remove_all(options.folder, ignored);
  return outcomes;
}

}  // namespace salient::pipeline
