// Tensors of a call turned into what kernels take, or a std::runtime_error that names the argument.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "params.h"

namespace flash_attn {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::headeronly::ScalarType;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

inline int32_t to_int32(int64_t value, const char* what) {
  if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
    fail(what, " is ", value, "; native kernels take 0 to ", std::numeric_limits<int32_t>::max());
  }
  return static_cast<int32_t>(value);
}

inline std::string shape_of(const Tensor& tensor) {
  std::string text = "(";
  for (int64_t n = 0; n < tensor.dim(); ++n) {
    text += (n ? ", " : "") + std::to_string(tensor.size(n));
  }
  return text + ")";
}

inline void check_shape(const Tensor& tensor, const char* name,
                        std::initializer_list<int64_t> shape) {
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t n = 0;
  std::string expected;
  for (const auto size : shape) {
    expected += (n ? ", " : "") + std::to_string(size);
    same = same && tensor.size(n) == size;
    ++n;
  }
  if (!same) fail(name, " has shape ", shape_of(tensor), "; expected (", expected, ")");
}

inline void check_device(const Tensor& tensor, const char* name, const Tensor& q) {
  if (tensor.is_cpu() != q.is_cpu() || tensor.get_device_index() != q.get_device_index()) {
    fail(name, " is not on the device of q");
  }
}

inline DataType data_type(ScalarType dtype, const char* name) {
  switch (dtype) {
    case ScalarType::Half:
      return DataType::kFloat16;
    case ScalarType::BFloat16:
      return DataType::kBFloat16;
    case ScalarType::Float8_e4m3fn:
      return DataType::kFloat8E4M3;
    case ScalarType::Float8_e4m3fnuz:
      return DataType::kFloat8E4M3Fnuz;
    default:
      fail(name, " is none of float16, bfloat16, float8_e4m3fn, float8_e4m3fnuz");
  }
}

// Dtype of the output where q is of `dtype`.
inline ScalarType out_type(ScalarType dtype) {
  return dtype == ScalarType::Half ? ScalarType::Half : ScalarType::BFloat16;
}

// Strides of a (batch, seqlen, nheads, head_dim) or (total, nheads, head_dim) tensor that kernels
// read 16 bytes at a time; some take one that repeats a row.
inline Strides strides_of(const Tensor& tensor, const char* name, bool may_repeat = false) {
  constexpr int64_t kBytes = 16;
  const int64_t dims = tensor.dim(), elements = kBytes / tensor.element_size();
  if (tensor.size(dims - 1) > 1 && tensor.stride(dims - 1) != 1) {
    fail(name, "'s last dimension is not contiguous");
  }
  const auto stride = [&](int64_t dim) {
    if (dim < 0 || tensor.size(dim) <= 1) return 0;
    const int64_t value = tensor.stride(dim);
    if (value % elements != 0) {
      fail(name, " has stride ", value, " in dimension ", dim,
           "; native kernels read multiples of ", elements, ": make it contiguous");
    }
    if (value == 0 && dim == dims - 3 && !may_repeat) {
      fail(name, " repeats one row (stride 0 in dimension ", dim, "): make it contiguous");
    }
    return to_int32(value, "a stride");
  };
  if (tensor.numel() > 0 && reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % kBytes != 0) {
    fail(name, " does not begin at a multiple of ", kBytes, " bytes: make it contiguous");
  }
  return {dims == 4 ? stride(0) : 0, stride(dims - 3), stride(dims - 2)};
}

// Scales of (batch, nheads_k), which may be an expanded view.
inline Descale descale_of(const OptionalTensor& tensor, const char* name, int64_t batch,
                          int64_t nheads_k, const Tensor& q) {
  if (!tensor) return {};
  check_device(*tensor, name, q);
  if (tensor->scalar_type() != ScalarType::Float) fail(name, " is not float32");
  check_shape(*tensor, name, {batch, nheads_k});
  return {static_cast<const float*>(tensor->const_data_ptr()),
          to_int32(tensor->stride(0), "a stride"), to_int32(tensor->stride(1), "a stride")};
}

template <class T>
const T* data_of(const OptionalTensor& tensor, const char* name, ScalarType type,
                 std::initializer_list<int64_t> shape, const Tensor& q) {
  if (!tensor) return nullptr;
  check_device(*tensor, name, q);
  if (tensor->scalar_type() != type) fail(name, " has the wrong dtype");
  check_shape(*tensor, name, shape);
  if (!tensor->is_contiguous()) fail(name, " is not contiguous");
  return static_cast<const T*>(tensor->const_data_ptr());
}

// Memory of a dense float32 tensor that kernels write or read.
inline float* dense_floats(const Tensor& tensor, const char* name,
                           std::initializer_list<int64_t> shape, const Tensor& q) {
  check_device(tensor, name, q);
  check_shape(tensor, name, shape);
  if (tensor.scalar_type() != ScalarType::Float || !tensor.is_contiguous()) {
    fail(name, " is not contiguous float32");
  }
  return static_cast<float*>(tensor.mutable_data_ptr());
}

}  // namespace flash_attn
