#include "quant/kernels/thread_team.h"

#include <omp.h>

#include <optional>

namespace salient::quant {

void run_team(int threads, const std::function<void(const TeamMember&)>& body) {
  if (threads <= 1 || omp_in_parallel() != 0) {
    MeetingPoint alone(1);
    return body({0, 1, alone});
  }
  std::optional<MeetingPoint> meeting;  // how many threads the system gives is known inside only
#pragma omp parallel num_threads(threads) default(shared)
  {
#pragma omp single
    meeting.emplace(omp_get_num_threads());  // all wait at the end of "single"
    body({omp_get_thread_num(), omp_get_num_threads(), *meeting});
  }
}

}  // namespace salient::quant
