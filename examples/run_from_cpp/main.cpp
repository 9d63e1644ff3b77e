// Runs compressed.onnx on rows of numbers with the native kernels, and says how long a row takes.
//
//   main MODEL.onnx [LIBRARY]  < rows.txt      one sample a line, its features separated by blanks
//
// LIBRARY is what python -c "import mncompress as mn; print(mn.runtime.library_path())" prints. Without it ONNX Runtime runs the bodies
// that the file carries.
#include <onnxruntime_cxx_api.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

int main(int argc, char** argv) try {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s MODEL.onnx [LIBRARY] < rows.txt\n", argv[0]);
        return 2;
    }
    Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "mncompress");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    if (argc > 2) options.RegisterCustomOpsLibrary(argv[2]);
    Ort::Session session(env, argv[1], options);
    Ort::AllocatorWithDefaultOptions allocator;
    const auto input = session.GetInputNameAllocated(0, allocator), output = session.GetOutputNameAllocated(0, allocator);
    const char *inputs[] = {input.get()}, *outputs[] = {output.get()};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

    double seconds = 0;
    long rows = 0;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream numbers(line);
        std::vector<float> x;
        for (float value; numbers >> value;) x.push_back(value);
        if (x.empty()) continue;
        const int64_t shape[] = {1, static_cast<int64_t>(x.size())};
        const auto tensor = Ort::Value::CreateTensor<float>(memory, x.data(), x.size(), shape, 2);
        const auto start = std::chrono::steady_clock::now();
        const auto found = session.Run(Ort::RunOptions{nullptr}, inputs, &tensor, 1, outputs, 1);
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        const auto count = found[0].GetTensorTypeAndShapeInfo().GetElementCount();
        for (size_t i = 0; i < count; ++i) std::printf(i + 1 < count ? "%.9g " : "%.9g\n", found[0].GetTensorData<float>()[i]);
        ++rows;
    }
    std::fprintf(stderr, "%ld rows, %.2f us a row\n", rows, rows ? seconds / rows * 1e6 : 0.0);
} catch (const Ort::Exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
