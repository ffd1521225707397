// Compiled with the include folders of every library of the project: fails here, with a reason, when a change of their order makes
// spdlog see the fmt copy that comes with torch.
#include <fmt/core.h>
#include <spdlog/version.h>

static_assert(FMT_VERSION / 10000 < 12, "found torch's own fmt before the system's: see the fmt_first folder in CMakeLists.txt");
