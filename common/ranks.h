// Processes that work on one job together, as MPI starts them: `mpirun -n 4 salient ...`.
//
// Whoever can work over ranks takes a `Ranks*`, null where this process works alone. All ranks run the same code and make the same
// exchanges in the same order. One that fails leaves none of the others waiting: its error goes up to whoever began (end()), and
// the others' next exchange throws OtherRankFailed, which takes them there, too.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "common/error.h"

namespace salient {

// What the launcher that started this process says of it.
struct StartedRanks {
  int rank = 0;
  int size = 1;
};

// Read from the environment: of Open MPI's mpirun, of PMI (MPICH, Intel MPI), of Slurm's srun with PMIx. Nothing of MPI is touched.
// One rank where no launcher started this process, or where what one says makes no sense.
StartedRanks started_ranks();

// The exchange could not be made, as another rank has failed: the error that counts is that one's.
class OtherRankFailed : public std::exception {
 public:
  const char* what() const noexcept override { return "another rank failed"; }
};

class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual int rank() const = 0;  // 0 to size() - 1
  virtual int size() const = 0;
  // Among those of the same host.
  virtual int host_rank() const = 0;
  virtual int host_size() const = 0;
  bool is_root() const { return rank() == 0; }

  // Exchanges. All of them throw OtherRankFailed, and io errors of MPI itself.

  // Every value becomes the sum over the ranks, with the same bits on all of them. The same number of values on each.
  virtual void sum(std::span<float> values) = 0;
  virtual void sum(std::span<double> values) = 0;
  virtual void sum(std::span<int64_t> values) = 0;
  // ... the largest of them.
  virtual void max(std::span<double> values) = 0;
  // The bytes of rank `from`; the same number on each.
  virtual void broadcast(std::span<std::byte> bytes, int from) = 0;
  // The text of rank `from`, of whatever length.
  virtual void broadcast(std::string& text, int from) = 0;
  // Rank `to` gets the text of rank `from`; that of all others stays as it is.
  virtual void send(std::string& text, int from, int to) = 0;
  // Returns when all ranks are here.
  virtual void meet() = 0;

  // The last exchange. `own`: the error that this rank ended with, nothing where it has done its work or was told of another's
  // failure. Returns the error of the lowest rank that has one, the same on every rank and saying which rank it was, or nothing
  // when all have done their work. Where this rank failed and others are not here after `patience`, they are busy: nothing can be
  // exchanged, the error returned is its own, and only abort() may follow: scattered() says so.
  virtual std::optional<Error> end(const std::optional<Error>& own, std::chrono::seconds patience) noexcept = 0;
  virtual bool scattered() const noexcept = 0;
  // Ends all ranks at once, this process with them.
  [[noreturn]] virtual void abort(int exit_code) noexcept = 0;
};

// Whether work is shared at all.
inline bool is_shared(const Ranks* ranks) { return ranks != nullptr && ranks->size() > 1; }

// The ranks that this process was started with; MPI ends when the object does. Errors: unsupported (code MPI_NOT_BUILT) in a build
// without MPI; io where MPI does not start, or where another MPI's launcher started the program.
std::unique_ptr<Ranks> connect_ranks(const StartedRanks& started);

}  // namespace salient
