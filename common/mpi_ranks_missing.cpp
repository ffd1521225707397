// In place of mpi_ranks.cpp where CMake found no MPI.
#include "common/ranks.h"

namespace salient {

std::unique_ptr<Ranks> connect_ranks(const StartedRanks& started) {
  throw Error(
      ErrorKind::kUnsupported,
      fmt::format("the launcher started {} ranks, but this build of Salient has no MPI to let them work together: CMake found none",
                  started.size))
      .with_code("MPI_NOT_BUILT")
      .with_hint(
          "install MPI (Debian: libopenmpi-dev openmpi-bin; elsewhere the cluster's own, with mpicxx in the PATH), configure and "
          "build again; "
          "or start the command without mpirun");
}

}  // namespace salient
