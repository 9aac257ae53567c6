#include "common/base/version.hpp"

namespace moesaic {

// Set by CMake for this file alone, so that a commit recompiles nothing else.
const char* const kVersion = MOESAIC_VERSION;
const char* const kGitId = MOESAIC_GIT_ID;
const char* const kBuild = MOESAIC_BUILD;

}  // namespace moesaic
