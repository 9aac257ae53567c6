#pragma once

#include <cstddef>

#include "common/base/thread_pool.hpp"

namespace moesaic {

/// fn(task) for each task in [0, tasks): on a pool, or on the caller if there is none.
template <class F>
void for_each_task(ThreadPool* pool, std::size_t tasks, F&& fn) {
  if (pool != nullptr) {
    pool->parallel_for(tasks, fn);
  } else {
    for (std::size_t i = 0; i < tasks; ++i) fn(i);
  }
}

}  // namespace moesaic
