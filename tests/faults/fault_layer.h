// Makes one chosen operation of a process fail, or ends the process right after it. Loaded into a program with LD_PRELOAD, it
// stands between the program, with SQLite, libtorch and libstdc++, and libc; fault_layer.cpp says which environment variables it
// reads.
#pragma once

namespace salient::test {

// Reads the environment and begins to count. Called when the program's main begins: what the loader and static constructors do is
// not counted.
void begin_faults();

}  // namespace salient::test
