// How white space around tags is read: Jinja2's environment options. The defaults are those of transformers' chat templates.
#pragma once

namespace salient::models::jinja {

struct Syntax {
  bool trim_blocks = true;             // the newline after a block tag goes
  bool lstrip_blocks = true;           // blanks before a block tag at the start of a line go
  bool keep_trailing_newline = false;  // of the template
};

// Jinja2's own defaults but for the trailing newline: the templates of lm-evaluation-harness.
inline constexpr Syntax kTaskSyntax = {false, false, true};

}  // namespace salient::models::jinja
