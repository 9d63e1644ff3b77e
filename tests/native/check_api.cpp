// Compares mncompress/native/ort_api.h with ONNX Runtime's own header: compiles if they agree, else fails.
//     g++ -std=c++17 -fsyntax-only -I<folder of onnxruntime_c_api.h> -Imncompress/native tests/native/check_api.cpp
#include "onnxruntime_c_api.h"
#include "ort_api.h"

#define SLOT(name) static_assert(offsetof(OrtApi, name) / sizeof(void*) == ort::Slot::name, #name)
SLOT(CreateStatus);
SLOT(CreateCustomOpDomain);
SLOT(CustomOpDomain_Add);
SLOT(AddCustomOpDomain);
SLOT(GetTensorMutableData);
SLOT(GetDimensionsCount);
SLOT(GetDimensions);
SLOT(GetSymbolicDimensions);
SLOT(GetTensorTypeAndShape);
SLOT(KernelContext_GetInputCount);
SLOT(KernelContext_GetInput);
SLOT(KernelContext_GetOutput);
SLOT(ReleaseStatus);
SLOT(ReleaseTensorTypeAndShapeInfo);
SLOT(ReleaseCustomOpDomain);
SLOT(KernelInfoGetAttributeArray_int64);
SLOT(KernelContext_GetGPUComputeStream);
SLOT(HasSessionConfigEntry);
SLOT(KernelInfo_GetInputCount);
SLOT(KernelInfoGetConstantInput_tensor);
SLOT(ShapeInferContext_GetInputTypeShape);
SLOT(ShapeInferContext_SetOutputTypeShape);
SLOT(KernelContext_ParallelFor);

#define MEMBER(name) static_assert(offsetof(OrtCustomOp, name) == offsetof(ort::CustomOp, name), #name)
MEMBER(GetName);
MEMBER(GetExecutionProviderType);
MEMBER(GetInputType);
MEMBER(GetInputTypeCount);
MEMBER(GetOutputType);
MEMBER(GetOutputTypeCount);
MEMBER(KernelDestroy);
MEMBER(GetInputCharacteristic);
MEMBER(GetOutputCharacteristic);
MEMBER(GetInputMemoryType);
MEMBER(GetVariadicInputMinArity);
MEMBER(GetVariadicInputHomogeneity);
MEMBER(CreateKernelV2);
MEMBER(KernelComputeV2);
MEMBER(InferOutputShapeFn);
MEMBER(GetStartVersion);
MEMBER(GetEndVersion);
MEMBER(GetMayInplace);
MEMBER(ReleaseMayInplace);
MEMBER(ReleaseAliasMap);

static_assert(offsetof(OrtApiBase, GetApi) == offsetof(ort::ApiBase, GetApi), "GetApi");
static_assert(int{ORT_FAIL} == ort::kFail && int{ORT_INVALID_ARGUMENT} == ort::kInvalidArgument, "error codes");
static_assert(int{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT} == ort::kFloat && int{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16} == ort::kFloat16
              && int{ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE} == ort::kDouble, "element types");
static_assert(int{OrtMemTypeCPUInput} == -2, "memory type");
