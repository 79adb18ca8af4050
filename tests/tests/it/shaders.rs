//! The shaders that are made for WGSL, checked and translated as wgpu does for each graphics API.

use std::fmt::Display;

use burn_sam_kernels::internals::wgsl;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// Runs `check` over the shaders for few and for many tensors, of each type, loaded in vectors and
/// one by one.
fn for_each_shader(check: impl Fn(&str, &naga::Module, &ModuleInfo)) {
    let mut checked = 0;
    for tensors in [1, 14] {
        for half in [false, true] {
            for vector_size in [1, 4] {
                for (shader, source) in wgsl(tensors, half, vector_size) {
                    let name =
                        format!("{shader} of {tensors}, half: {half}, vectors of {vector_size}");
                    let module = naga::front::wgsl::parse_str(&source)
                        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&source)));
                    let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16)
                        .validate(&module)
                        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&source)));
                    check(&name, &module, &info);
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 2 * 2 * 2 * (2 + 5 + 3 + 3));
}

/// What a translation names the kernel.
fn entry_point<'a, E: Display>(names: &'a [Result<String, E>], shader: &str) -> &'a str {
    names[0]
        .as_ref()
        .unwrap_or_else(|e| panic!("{shader}: {e}"))
}

#[test]
fn vulkan_takes_the_shaders() {
    for_each_shader(|name, module, info| {
        let words = spv::write_vec(module, info, &spv::Options::default(), None)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(words[0], 0x0723_0203, "{name} is not SPIR-V");
    });
}

#[test]
fn dx12_takes_the_shaders() {
    // Half precision needs shader model 6.2.
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        ..Default::default()
    };
    for_each_shader(|name, module, info| {
        let pipeline = hlsl::PipelineOptions::default();
        let mut source = String::new();
        let translation = hlsl::Writer::new(&mut source, &options, &pipeline)
            .write(module, info, None)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let entry = entry_point(&translation.entry_point_names, name);
        assert!(source.contains(&format!("void {entry}(")), "{name}");
    });
}

#[test]
fn metal_takes_the_shaders() {
    let options = msl::Options {
        lang_version: (2, 3),
        fake_missing_bindings: true,
        ..Default::default()
    };
    for_each_shader(|name, module, info| {
        let (source, translation) =
            msl::write_string(module, info, &options, &msl::PipelineOptions::default())
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        let entry = entry_point(&translation.entry_point_names, name);
        assert!(source.contains(&format!("kernel void {entry}(")), "{name}");
    });
}

/// Each is one kernel that does what its name says, in f32.
#[test]
fn half_precision_is_computed_in_single() {
    for (shader, source) in wgsl(2, true, 4) {
        if !["total", "compute"].contains(&shader.as_str()) {
            assert!(
                source.contains("vec4<f16>"),
                "{shader} reads no f16:\n{source}"
            );
        }
        assert!(!source.contains("f16("), "{shader} computes:\n{source}");
    }
}
