// Ranks by MPI: 3.0 or later, any implementation.
//
// Before each exchange the ranks tell each other whether all are still there: one number, and the only place where a rank waits for
// another that computes. It asks in turn and sleeps between, where MPI's own waiting would take a whole core from ranks that share
// it.
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <thread>

#include "common/json.h"
#include "common/ranks.h"

namespace salient {
namespace {

// MPI counts in int.
constexpr size_t kPiece = size_t{1} << 28;

constexpr int kSpins = 200;  // questions in a row before the first sleep
constexpr std::chrono::microseconds kShortest{20};
constexpr std::chrono::microseconds kLongest{2000};
constexpr auto kForever = std::chrono::steady_clock::time_point::max();

void check(int result, const char* what) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(result, text, &length);
  throw Error(ErrorKind::kIo, fmt::format("MPI: {}: {}", what, std::string_view(text, static_cast<size_t>(length))))
      .with_code("MPI_FAILED");
}

template <typename T, typename Exchange>
void in_pieces(std::span<T> values, const Exchange& exchange) {
  for (size_t begin = 0; begin < values.size(); begin += kPiece)
    exchange(values.data() + begin, static_cast<int>(std::min(kPiece, values.size() - begin)));
}

Json to_json(const Error& error) {
  return {{"kind", static_cast<int>(error.kind())}, {"message", error.message()}, {"code", error.code()}, {"hint", error.hint()}};
}

class MpiRanks : public Ranks {
 public:
  explicit MpiRanks(const StartedRanks& started) {
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    if (size_ != started.size) {
      MPI_Finalize();
      throw Error(ErrorKind::kIo, fmt::format("the launcher started {} ranks, MPI sees {}", started.size, size_))
          .with_code("MPI_FAILED")
          .with_hint(
              "use the mpirun of the MPI that Salient was built with (ldd $(which salient) | grep mpi), or with Slurm "
              "srun --mpi=pmix");
    }
    MPI_Comm host = MPI_COMM_NULL;
    check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host), "MPI_Comm_split_type");
    MPI_Comm_rank(host, &host_rank_);
    MPI_Comm_size(host, &host_size_);
    MPI_Comm_free(&host);
  }

  // Every rank comes here, whatever happened: what could not be exchanged ended in abort().
  ~MpiRanks() override { MPI_Finalize(); }
  MpiRanks(const MpiRanks&) = delete;
  MpiRanks& operator=(const MpiRanks&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int host_rank() const override { return host_rank_; }
  int host_size() const override { return host_size_; }

  void sum(std::span<float> values) override { reduce(values, MPI_FLOAT, MPI_SUM); }
  void sum(std::span<double> values) override { reduce(values, MPI_DOUBLE, MPI_SUM); }
  void sum(std::span<int64_t> values) override { reduce(values, MPI_INT64_T, MPI_SUM); }
  void max(std::span<double> values) override { reduce(values, MPI_DOUBLE, MPI_MAX); }

  void broadcast(std::span<std::byte> bytes, int from) override {
    meet();
    spread(bytes, from);
  }

  void broadcast(std::string& text, int from) override {
    meet();
    auto length = static_cast<int64_t>(text.size());
    check(MPI_Bcast(&length, 1, MPI_INT64_T, from, MPI_COMM_WORLD), "MPI_Bcast");
    make_room(text, length);
    spread(std::as_writable_bytes(std::span(text)), from);
  }

  void send(std::string& text, int from, int to) override {
    meet();
    if (from == to || (rank_ != from && rank_ != to)) return;
    auto length = static_cast<int64_t>(text.size());
    if (rank_ == from) {
      check(MPI_Send(&length, 1, MPI_INT64_T, to, 0, MPI_COMM_WORLD), "MPI_Send");
    } else {
      check(MPI_Recv(&length, 1, MPI_INT64_T, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "MPI_Recv");
      make_room(text, length);
    }
    in_pieces(std::span(text), [&](char* piece, int count) {
      if (rank_ == from) {
        check(MPI_Send(piece, count, MPI_BYTE, to, 0, MPI_COMM_WORLD), "MPI_Send");
      } else {
        check(MPI_Recv(piece, count, MPI_BYTE, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "MPI_Recv");
      }
    });
  }

  void meet() override {
    if (all_well(/*failed=*/false, kForever) == Health::kFailed) {
      told_ = true;
      throw OtherRankFailed();
    }
  }

  std::optional<Error> end(const std::optional<Error>& own, std::chrono::seconds patience) noexcept override {
    try {
      if (!told_) {
        const auto limit = own ? std::chrono::steady_clock::now() + patience : kForever;
        const Health health = all_well(own.has_value(), limit);
        if (health == Health::kUnknown) {
          scattered_ = true;
          return with_rank(*own, rank_);
        }
        if (health == Health::kWell) return std::nullopt;
      }
      return first_error(own);
    } catch (...) {  // MPI itself fails: nobody can be told
      scattered_ = true;
      return own ? with_rank(*own, rank_) : Error(ErrorKind::kIo, "MPI failed while the ranks ended").with_code("MPI_FAILED");
    }
  }

  bool scattered() const noexcept override { return scattered_; }

  [[noreturn]] void abort(int exit_code) noexcept override {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);
  }

 private:
  enum class Health { kWell, kFailed, kUnknown };

  // Waits for all ranks, until `limit` at most: whether one of them has failed.
  Health all_well(bool failed, std::chrono::steady_clock::time_point limit) {
    mine_ = failed ? 1 : 0;
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallreduce(&mine_, &anyone_, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD, &request), "MPI_Iallreduce");
    std::chrono::microseconds pause = kShortest;
    for (int64_t question = 0;; ++question) {
      int done = 0;
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done != 0) return anyone_ != 0 ? Health::kFailed : Health::kWell;
      if (question < kSpins) {
        ::sched_yield();
        continue;
      }
      if (std::chrono::steady_clock::now() > limit) return Health::kUnknown;
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, kLongest);
    }
  }

  template <typename T>
  void reduce(std::span<T> values, MPI_Datatype type, MPI_Op operation) {
    meet();
    in_pieces(values, [&](T* piece, int count) {
      check(MPI_Allreduce(MPI_IN_PLACE, piece, count, type, operation, MPI_COMM_WORLD), "MPI_Allreduce");
    });
  }

  void spread(std::span<std::byte> bytes, int from) {
    in_pieces(bytes,
              [&](std::byte* piece, int count) { check(MPI_Bcast(piece, count, MPI_BYTE, from, MPI_COMM_WORLD), "MPI_Bcast"); });
  }

  // In the middle of an exchange nobody can be told of a failure.
  void make_room(std::string& text, int64_t length) noexcept {
    try {
      text.resize(static_cast<size_t>(length));
    } catch (...) {
      std::fprintf(stderr, "salient: rank %d of %d: no memory for %lld bytes of another rank\n", rank_, size_,
                   static_cast<long long>(length));
      abort(static_cast<int>(ErrorKind::kIo));
    }
  }

  Error with_rank(const Error& error, int rank) const {
    return Error(error.kind(), fmt::format("rank {} of {}: {}", rank, size_, error.message()))
        .with_code(error.code())
        .with_hint(error.hint());
  }

  // Nobody computes any more: all ranks know that one has failed.
  Error first_error(const std::optional<Error>& own) {
    int first = own ? rank_ : std::numeric_limits<int>::max();
    check(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "MPI_Allreduce");
    if (first >= size_) return Error(ErrorKind::kInternal, "a rank failed without an error");
    std::string text = own ? dump_json(to_json(*own)) : "";
    auto length = static_cast<int64_t>(text.size());
    check(MPI_Bcast(&length, 1, MPI_INT64_T, first, MPI_COMM_WORLD), "MPI_Bcast");
    make_room(text, length);
    spread(std::as_writable_bytes(std::span(text)), first);
    const Json json = parse_json(text, "the error of a rank");
    const Error found = Error(static_cast<ErrorKind>(json.at("kind").get<int>()), json.at("message").get<std::string>())
                            .with_code(json.at("code").get<std::string>())
                            .with_hint(json.at("hint").get<std::string>());
    return first == 0 ? found : with_rank(found, first);
  }

  int rank_ = 0;
  int size_ = 1;
  int host_rank_ = 0;
  int host_size_ = 1;
  int mine_ = 0;    // of the exchange that is under way: MPI reads and
  int anyone_ = 0;  // writes them meanwhile
  bool told_ = false;
  bool scattered_ = false;
};

}  // namespace

std::unique_ptr<Ranks> connect_ranks(const StartedRanks& started) { return std::make_unique<MpiRanks>(started); }

}  // namespace salient
