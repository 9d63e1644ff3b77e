// Generated from kernels.cu, which says how, by nvcc release 13.0
constexpr char kKernelsPtx[] = R"ptx(
.version 6.0
.target sm_60
.address_size 64
.visible .entry mnc_cubic_spline(
	.param .u64 mnc_cubic_spline_param_0,
	.param .u64 mnc_cubic_spline_param_1,
	.param .u64 mnc_cubic_spline_param_2,
	.param .u64 mnc_cubic_spline_param_3,
	.param .u64 mnc_cubic_spline_param_4,
	.param .u64 mnc_cubic_spline_param_5,
	.param .u32 mnc_cubic_spline_param_6
)
{
	.reg .pred 	%p<13>;
	.reg .f32 	%f<79>;
	.reg .b32 	%r<18>;
	.reg .b64 	%rd<85>;
	ld.param.u64 	%rd22, [mnc_cubic_spline_param_0];
	ld.param.u64 	%rd23, [mnc_cubic_spline_param_1];
	ld.param.u64 	%rd18, [mnc_cubic_spline_param_2];
	ld.param.u64 	%rd19, [mnc_cubic_spline_param_3];
	ld.param.u64 	%rd20, [mnc_cubic_spline_param_4];
	ld.param.u64 	%rd21, [mnc_cubic_spline_param_5];
	ld.param.u32 	%r1, [mnc_cubic_spline_param_6];
	cvta.to.global.u64 	%rd1, %rd22;
	cvta.to.global.u64 	%rd2, %rd23;
	mov.u32 	%r2, %ntid.y;
	cvt.u64.u32 	%rd3, %r2;
	mov.u32 	%r3, %ctaid.y;
	mov.u32 	%r4, %ntid.x;
	cvt.u64.u32 	%rd4, %r4;
	mul.wide.u32 	%rd24, %r3, %r4;
	mov.u32 	%r5, %tid.x;
	cvt.u64.u32 	%rd25, %r5;
	add.s64 	%rd83, %rd24, %rd25;
	setp.ge.u64 	%p1, %rd83, %rd19;
	@%p1 bra 	$L__BB0_22;
	shl.b64 	%rd26, %rd3, 2;
	cvt.rn.f32.u32 	%f1, %r1;
	cvt.u64.u32 	%rd27, %r1;
	add.s64 	%rd6, %rd27, 1;
	mov.u32 	%r6, %ctaid.x;
	cvt.u64.u32 	%rd28, %r6;
	mul.lo.s64 	%rd29, %rd26, %rd28;
	mov.u32 	%r7, %tid.y;
	cvt.u64.u32 	%rd30, %r7;
	add.s64 	%rd7, %rd29, %rd30;
	mov.u32 	%r8, %nctaid.y;
	cvt.u64.u32 	%rd31, %r8;
	mul.lo.s64 	%rd8, %rd31, %rd4;
	mov.u32 	%r9, %nctaid.x;
	cvt.u64.u32 	%rd32, %r9;
	mul.lo.s64 	%rd9, %rd26, %rd32;
$L__BB0_2:
	shl.b64 	%rd34, %rd83, 3;
	add.s64 	%rd33, %rd21, %rd34;
	ld.global.nc.v2.f32 {%f16,%f17}, [%rd33];
	setp.ge.u64 	%p2, %rd7, %rd18;
	@%p2 bra 	$L__BB0_21;
	mul.lo.s64 	%rd11, %rd83, %rd6;
	mov.u64 	%rd84, %rd7;
$L__BB0_4:
	setp.ge.u64 	%p3, %rd84, %rd18;
	mov.f32 	%f76, 0f00000000;
	mov.f32 	%f75, %f76;
	@%p3 bra 	$L__BB0_6;
	mul.lo.s64 	%rd35, %rd84, %rd19;
	add.s64 	%rd36, %rd35, %rd83;
	shl.b64 	%rd37, %rd36, 2;
	add.s64 	%rd38, %rd1, %rd37;
	ld.global.f32 	%f75, [%rd38];
$L__BB0_6:
	add.s64 	%rd13, %rd84, %rd3;
	setp.ge.u64 	%p4, %rd13, %rd18;
	@%p4 bra 	$L__BB0_8;
	mul.lo.s64 	%rd39, %rd13, %rd19;
	add.s64 	%rd40, %rd39, %rd83;
	shl.b64 	%rd41, %rd40, 2;
	add.s64 	%rd42, %rd1, %rd41;
	ld.global.f32 	%f76, [%rd42];
$L__BB0_8:
	add.s64 	%rd14, %rd13, %rd3;
	setp.ge.u64 	%p5, %rd14, %rd18;
	mov.f32 	%f78, 0f00000000;
	mov.f32 	%f77, %f78;
	@%p5 bra 	$L__BB0_10;
	mul.lo.s64 	%rd43, %rd14, %rd19;
	add.s64 	%rd44, %rd43, %rd83;
	shl.b64 	%rd45, %rd44, 2;
	add.s64 	%rd46, %rd1, %rd45;
	ld.global.f32 	%f77, [%rd46];
$L__BB0_10:
	add.s64 	%rd15, %rd14, %rd3;
	setp.ge.u64 	%p6, %rd15, %rd18;
	@%p6 bra 	$L__BB0_12;
	mul.lo.s64 	%rd47, %rd15, %rd19;
	add.s64 	%rd48, %rd47, %rd83;
	shl.b64 	%rd49, %rd48, 2;
	add.s64 	%rd50, %rd1, %rd49;
	ld.global.f32 	%f78, [%rd50];
$L__BB0_12:
	sub.f32 	%f38, %f75, %f16;
	mul.rn.f32 	%f39, %f38, %f17;
	mov.f32 	%f40, 0f00000000;
	max.f32 	%f41, %f39, %f40;
	min.f32 	%f42, %f41, %f1;
	cvt.rmi.f32.f32 	%f43, %f42;
	sub.f32 	%f44, %f39, %f43;
	cvt.sat.f32.f32 	%f45, %f44;
	cvt.rzi.u32.f32 	%r10, %f43;
	min.u32 	%r11, %r10, %r1;
	cvt.u64.u32 	%rd55, %r11;
	add.s64 	%rd56, %rd11, %rd55;
	shl.b64 	%rd57, %rd56, 4;
	add.s64 	%rd51, %rd20, %rd57;
	ld.global.nc.v4.f32 {%f22,%f23,%f24,%f25}, [%rd51];
	sub.f32 	%f46, %f76, %f16;
	mul.rn.f32 	%f47, %f46, %f17;
	max.f32 	%f48, %f47, %f40;
	min.f32 	%f49, %f48, %f1;
	cvt.rmi.f32.f32 	%f50, %f49;
	sub.f32 	%f51, %f47, %f50;
	cvt.sat.f32.f32 	%f52, %f51;
	cvt.rzi.u32.f32 	%r12, %f50;
	min.u32 	%r13, %r12, %r1;
	cvt.u64.u32 	%rd58, %r13;
	add.s64 	%rd59, %rd11, %rd58;
	shl.b64 	%rd60, %rd59, 4;
	add.s64 	%rd52, %rd20, %rd60;
	ld.global.nc.v4.f32 {%f26,%f27,%f28,%f29}, [%rd52];
	sub.f32 	%f53, %f77, %f16;
	mul.rn.f32 	%f54, %f53, %f17;
	max.f32 	%f55, %f54, %f40;
	min.f32 	%f56, %f55, %f1;
	cvt.rmi.f32.f32 	%f57, %f56;
	sub.f32 	%f58, %f54, %f57;
	cvt.sat.f32.f32 	%f59, %f58;
	cvt.rzi.u32.f32 	%r14, %f57;
	min.u32 	%r15, %r14, %r1;
	cvt.u64.u32 	%rd61, %r15;
	add.s64 	%rd62, %rd11, %rd61;
	shl.b64 	%rd63, %rd62, 4;
	add.s64 	%rd53, %rd20, %rd63;
	ld.global.nc.v4.f32 {%f30,%f31,%f32,%f33}, [%rd53];
	sub.f32 	%f60, %f78, %f16;
	mul.rn.f32 	%f61, %f60, %f17;
	max.f32 	%f62, %f61, %f40;
	min.f32 	%f63, %f62, %f1;
	cvt.rmi.f32.f32 	%f64, %f63;
	sub.f32 	%f65, %f61, %f64;
	cvt.sat.f32.f32 	%f66, %f65;
	cvt.rzi.u32.f32 	%r16, %f64;
	min.u32 	%r17, %r16, %r1;
	cvt.u64.u32 	%rd64, %r17;
	add.s64 	%rd65, %rd11, %rd64;
	shl.b64 	%rd66, %rd65, 4;
	add.s64 	%rd54, %rd20, %rd66;
	ld.global.nc.v4.f32 {%f34,%f35,%f36,%f37}, [%rd54];
	fma.rn.f32 	%f67, %f45, %f25, %f24;
	fma.rn.f32 	%f68, %f45, %f67, %f23;
	fma.rn.f32 	%f12, %f44, %f68, %f22;
	fma.rn.f32 	%f69, %f52, %f29, %f28;
	fma.rn.f32 	%f70, %f52, %f69, %f27;
	fma.rn.f32 	%f13, %f51, %f70, %f26;
	fma.rn.f32 	%f71, %f59, %f33, %f32;
	fma.rn.f32 	%f72, %f59, %f71, %f31;
	fma.rn.f32 	%f14, %f58, %f72, %f30;
	fma.rn.f32 	%f73, %f66, %f37, %f36;
	fma.rn.f32 	%f74, %f66, %f73, %f35;
	fma.rn.f32 	%f15, %f65, %f74, %f34;
	@%p3 bra 	$L__BB0_14;
	mul.lo.s64 	%rd67, %rd84, %rd19;
	add.s64 	%rd68, %rd67, %rd83;
	shl.b64 	%rd69, %rd68, 2;
	add.s64 	%rd70, %rd2, %rd69;
	st.global.f32 	[%rd70], %f12;
$L__BB0_14:
	@%p4 bra 	$L__BB0_16;
	mul.lo.s64 	%rd71, %rd13, %rd19;
	add.s64 	%rd72, %rd71, %rd83;
	shl.b64 	%rd73, %rd72, 2;
	add.s64 	%rd74, %rd2, %rd73;
	st.global.f32 	[%rd74], %f13;
$L__BB0_16:
	@%p5 bra 	$L__BB0_18;
	mul.lo.s64 	%rd75, %rd14, %rd19;
	add.s64 	%rd76, %rd75, %rd83;
	shl.b64 	%rd77, %rd76, 2;
	add.s64 	%rd78, %rd2, %rd77;
	st.global.f32 	[%rd78], %f14;
$L__BB0_18:
	@%p6 bra 	$L__BB0_20;
	mul.lo.s64 	%rd79, %rd15, %rd19;
	add.s64 	%rd80, %rd79, %rd83;
	shl.b64 	%rd81, %rd80, 2;
	add.s64 	%rd82, %rd2, %rd81;
	st.global.f32 	[%rd82], %f15;
$L__BB0_20:
	add.s64 	%rd84, %rd84, %rd9;
	setp.lt.u64 	%p11, %rd84, %rd18;
	@%p11 bra 	$L__BB0_4;
$L__BB0_21:
	add.s64 	%rd83, %rd83, %rd8;
	setp.lt.u64 	%p12, %rd83, %rd19;
	@%p12 bra 	$L__BB0_2;
$L__BB0_22:
	ret;
}
.visible .entry mnc_piecewise_linear(
	.param .u64 mnc_piecewise_linear_param_0,
	.param .u64 mnc_piecewise_linear_param_1,
	.param .u64 mnc_piecewise_linear_param_2,
	.param .u64 mnc_piecewise_linear_param_3,
	.param .u64 mnc_piecewise_linear_param_4,
	.param .u64 mnc_piecewise_linear_param_5,
	.param .u64 mnc_piecewise_linear_param_6
)
{
	.reg .pred 	%p<19>;
	.reg .f32 	%f<153>;
	.reg .b32 	%r<20>;
	.reg .b64 	%rd<90>;
	ld.param.u64 	%rd27, [mnc_piecewise_linear_param_0];
	ld.param.u64 	%rd28, [mnc_piecewise_linear_param_1];
	ld.param.u64 	%rd22, [mnc_piecewise_linear_param_2];
	ld.param.u64 	%rd23, [mnc_piecewise_linear_param_3];
	cvta.to.global.u64 	%rd1, %rd27;
	cvta.to.global.u64 	%rd2, %rd28;
	mov.u32 	%r7, %ntid.y;
	cvt.u64.u32 	%rd3, %r7;
	mov.u32 	%r8, %ctaid.y;
	mov.u32 	%r9, %ntid.x;
	cvt.u64.u32 	%rd4, %r9;
	mul.wide.u32 	%rd29, %r8, %r9;
	mov.u32 	%r10, %tid.x;
	cvt.u64.u32 	%rd30, %r10;
	add.s64 	%rd86, %rd29, %rd30;
	setp.ge.u64 	%p1, %rd86, %rd23;
	@%p1 bra 	$L__BB1_30;
	shl.b64 	%rd31, %rd3, 2;
	mov.u32 	%r11, %ctaid.x;
	cvt.u64.u32 	%rd32, %r11;
	mul.lo.s64 	%rd33, %rd31, %rd32;
	mov.u32 	%r12, %tid.y;
	cvt.u64.u32 	%rd34, %r12;
	add.s64 	%rd6, %rd33, %rd34;
	mov.u32 	%r13, %nctaid.y;
	cvt.u64.u32 	%rd35, %r13;
	mul.lo.s64 	%rd7, %rd35, %rd4;
	mov.u32 	%r14, %nctaid.x;
	cvt.u64.u32 	%rd36, %r14;
	mul.lo.s64 	%rd8, %rd31, %rd36;
	shl.b64 	%rd9, %rd23, 1;
	shl.b64 	%rd10, %rd23, 3;
	shl.b64 	%rd66, %rd9, 3;
$L__BB1_2:
	ld.param.u64 	%rd84, [mnc_piecewise_linear_param_5];
	ld.param.u64 	%rd83, [mnc_piecewise_linear_param_6];
	shl.b64 	%rd39, %rd86, 2;
	add.s64 	%rd37, %rd83, %rd39;
	ld.global.nc.u32 %r15, [%rd37];
	shl.b64 	%rd40, %rd86, 3;
	add.s64 	%rd38, %rd84, %rd40;
	ld.global.nc.v2.f32 {%f45,%f46}, [%rd38];
	setp.ge.u64 	%p2, %rd6, %rd22;
	@%p2 bra 	$L__BB1_29;
	ld.param.u64 	%rd85, [mnc_piecewise_linear_param_4];
	add.s64 	%rd12, %rd85, %rd40;
	and.b32  	%r3, %r15, 3;
	mov.u64 	%rd87, %rd6;
$L__BB1_4:
	setp.ge.u64 	%p3, %rd87, %rd22;
	mov.f32 	%f138, 0f00000000;
	mov.f32 	%f137, %f138;
	@%p3 bra 	$L__BB1_6;
	mul.lo.s64 	%rd42, %rd87, %rd23;
	add.s64 	%rd43, %rd42, %rd86;
	shl.b64 	%rd44, %rd43, 2;
	add.s64 	%rd45, %rd1, %rd44;
	ld.global.f32 	%f137, [%rd45];
$L__BB1_6:
	add.s64 	%rd14, %rd87, %rd3;
	setp.ge.u64 	%p4, %rd14, %rd22;
	@%p4 bra 	$L__BB1_8;
	mul.lo.s64 	%rd46, %rd14, %rd23;
	add.s64 	%rd47, %rd46, %rd86;
	shl.b64 	%rd48, %rd47, 2;
	add.s64 	%rd49, %rd1, %rd48;
	ld.global.f32 	%f138, [%rd49];
$L__BB1_8:
	add.s64 	%rd15, %rd14, %rd3;
	setp.ge.u64 	%p5, %rd15, %rd22;
	mov.f32 	%f140, 0f00000000;
	mov.f32 	%f139, %f140;
	@%p5 bra 	$L__BB1_10;
	mul.lo.s64 	%rd50, %rd15, %rd23;
	add.s64 	%rd51, %rd50, %rd86;
	shl.b64 	%rd52, %rd51, 2;
	add.s64 	%rd53, %rd1, %rd52;
	ld.global.f32 	%f139, [%rd53];
$L__BB1_10:
	add.s64 	%rd16, %rd15, %rd3;
	setp.ge.u64 	%p6, %rd16, %rd22;
	@%p6 bra 	$L__BB1_12;
	mul.lo.s64 	%rd54, %rd16, %rd23;
	add.s64 	%rd55, %rd54, %rd86;
	shl.b64 	%rd56, %rd55, 2;
	add.s64 	%rd57, %rd1, %rd56;
	ld.global.f32 	%f140, [%rd57];
$L__BB1_12:
	fma.rn.f32 	%f152, %f46, %f137, %f45;
	fma.rn.f32 	%f151, %f46, %f138, %f45;
	fma.rn.f32 	%f150, %f46, %f139, %f45;
	fma.rn.f32 	%f149, %f46, %f140, %f45;
	setp.eq.s32 	%p7, %r15, 0;
	@%p7 bra 	$L__BB1_20;
	add.s32 	%r16, %r15, -1;
	setp.lt.u32 	%p8, %r16, 3;
	mov.u64 	%rd89, %rd12;
	@%p8 bra 	$L__BB1_16;
	and.b32  	%r18, %r15, 3;
	sub.s32 	%r19, %r15, %r18;
	mov.u64 	%rd89, %rd12;
$L__BB1_15:
	ld.global.nc.v2.f32 {%f51,%f52}, [%rd89];
	sub.f32 	%f59, %f137, %f51;
	mov.f32 	%f60, 0f00000000;
	max.f32 	%f61, %f59, %f60;
	fma.rn.f32 	%f62, %f52, %f61, %f152;
	sub.f32 	%f63, %f138, %f51;
	max.f32 	%f64, %f63, %f60;
	fma.rn.f32 	%f65, %f52, %f64, %f151;
	sub.f32 	%f66, %f139, %f51;
	max.f32 	%f67, %f66, %f60;
	fma.rn.f32 	%f68, %f52, %f67, %f150;
	sub.f32 	%f69, %f140, %f51;
	max.f32 	%f70, %f69, %f60;
	fma.rn.f32 	%f71, %f52, %f70, %f149;
	add.s64 	%rd59, %rd89, %rd10;
	ld.global.nc.v2.f32 {%f53,%f54}, [%rd59];
	sub.f32 	%f72, %f137, %f53;
	max.f32 	%f73, %f72, %f60;
	fma.rn.f32 	%f74, %f54, %f73, %f62;
	sub.f32 	%f75, %f138, %f53;
	max.f32 	%f76, %f75, %f60;
	fma.rn.f32 	%f77, %f54, %f76, %f65;
	sub.f32 	%f78, %f139, %f53;
	max.f32 	%f79, %f78, %f60;
	fma.rn.f32 	%f80, %f54, %f79, %f68;
	sub.f32 	%f81, %f140, %f53;
	max.f32 	%f82, %f81, %f60;
	fma.rn.f32 	%f83, %f54, %f82, %f71;
	add.s64 	%rd60, %rd59, %rd10;
	ld.global.nc.v2.f32 {%f55,%f56}, [%rd60];
	sub.f32 	%f84, %f137, %f55;
	max.f32 	%f85, %f84, %f60;
	fma.rn.f32 	%f86, %f56, %f85, %f74;
	sub.f32 	%f87, %f138, %f55;
	max.f32 	%f88, %f87, %f60;
	fma.rn.f32 	%f89, %f56, %f88, %f77;
	sub.f32 	%f90, %f139, %f55;
	max.f32 	%f91, %f90, %f60;
	fma.rn.f32 	%f92, %f56, %f91, %f80;
	sub.f32 	%f93, %f140, %f55;
	max.f32 	%f94, %f93, %f60;
	fma.rn.f32 	%f95, %f56, %f94, %f83;
	add.s64 	%rd61, %rd60, %rd10;
	add.s64 	%rd89, %rd61, %rd10;
	ld.global.nc.v2.f32 {%f57,%f58}, [%rd61];
	sub.f32 	%f96, %f137, %f57;
	max.f32 	%f97, %f96, %f60;
	fma.rn.f32 	%f152, %f58, %f97, %f86;
	sub.f32 	%f98, %f138, %f57;
	max.f32 	%f99, %f98, %f60;
	fma.rn.f32 	%f151, %f58, %f99, %f89;
	sub.f32 	%f100, %f139, %f57;
	max.f32 	%f101, %f100, %f60;
	fma.rn.f32 	%f150, %f58, %f101, %f92;
	sub.f32 	%f102, %f140, %f57;
	max.f32 	%f103, %f102, %f60;
	fma.rn.f32 	%f149, %f58, %f103, %f95;
	add.s32 	%r19, %r19, -4;
	setp.ne.s32 	%p9, %r19, 0;
	@%p9 bra 	$L__BB1_15;
$L__BB1_16:
	setp.eq.s32 	%p10, %r3, 0;
	@%p10 bra 	$L__BB1_20;
	setp.eq.s32 	%p11, %r3, 1;
	ld.global.nc.v2.f32 {%f104,%f105}, [%rd89];
	sub.f32 	%f106, %f137, %f104;
	mov.f32 	%f107, 0f00000000;
	max.f32 	%f108, %f106, %f107;
	fma.rn.f32 	%f152, %f105, %f108, %f152;
	sub.f32 	%f109, %f138, %f104;
	max.f32 	%f110, %f109, %f107;
	fma.rn.f32 	%f151, %f105, %f110, %f151;
	sub.f32 	%f111, %f139, %f104;
	max.f32 	%f112, %f111, %f107;
	fma.rn.f32 	%f150, %f105, %f112, %f150;
	sub.f32 	%f113, %f140, %f104;
	max.f32 	%f114, %f113, %f107;
	fma.rn.f32 	%f149, %f105, %f114, %f149;
	@%p11 bra 	$L__BB1_20;
	setp.eq.s32 	%p12, %r3, 2;
	add.s64 	%rd63, %rd89, %rd10;
	ld.global.nc.v2.f32 {%f115,%f116}, [%rd63];
	sub.f32 	%f117, %f137, %f115;
	max.f32 	%f119, %f117, %f107;
	fma.rn.f32 	%f152, %f116, %f119, %f152;
	sub.f32 	%f120, %f138, %f115;
	max.f32 	%f121, %f120, %f107;
	fma.rn.f32 	%f151, %f116, %f121, %f151;
	sub.f32 	%f122, %f139, %f115;
	max.f32 	%f123, %f122, %f107;
	fma.rn.f32 	%f150, %f116, %f123, %f150;
	sub.f32 	%f124, %f140, %f115;
	max.f32 	%f125, %f124, %f107;
	fma.rn.f32 	%f149, %f116, %f125, %f149;
	@%p12 bra 	$L__BB1_20;
	add.s64 	%rd65, %rd89, %rd66;
	ld.global.nc.v2.f32 {%f126,%f127}, [%rd65];
	sub.f32 	%f128, %f137, %f126;
	mov.f32 	%f129, 0f00000000;
	max.f32 	%f130, %f128, %f129;
	fma.rn.f32 	%f152, %f127, %f130, %f152;
	sub.f32 	%f131, %f138, %f126;
	max.f32 	%f132, %f131, %f129;
	fma.rn.f32 	%f151, %f127, %f132, %f151;
	sub.f32 	%f133, %f139, %f126;
	max.f32 	%f134, %f133, %f129;
	fma.rn.f32 	%f150, %f127, %f134, %f150;
	sub.f32 	%f135, %f140, %f126;
	max.f32 	%f136, %f135, %f129;
	fma.rn.f32 	%f149, %f127, %f136, %f149;
$L__BB1_20:
	@%p3 bra 	$L__BB1_22;
	mul.lo.s64 	%rd67, %rd87, %rd23;
	add.s64 	%rd68, %rd67, %rd86;
	shl.b64 	%rd69, %rd68, 2;
	add.s64 	%rd70, %rd2, %rd69;
	st.global.f32 	[%rd70], %f152;
$L__BB1_22:
	@%p4 bra 	$L__BB1_24;
	mul.lo.s64 	%rd71, %rd14, %rd23;
	add.s64 	%rd72, %rd71, %rd86;
	shl.b64 	%rd73, %rd72, 2;
	add.s64 	%rd74, %rd2, %rd73;
	st.global.f32 	[%rd74], %f151;
$L__BB1_24:
	@%p5 bra 	$L__BB1_26;
	mul.lo.s64 	%rd75, %rd15, %rd23;
	add.s64 	%rd76, %rd75, %rd86;
	shl.b64 	%rd77, %rd76, 2;
	add.s64 	%rd78, %rd2, %rd77;
	st.global.f32 	[%rd78], %f150;
$L__BB1_26:
	@%p6 bra 	$L__BB1_28;
	mul.lo.s64 	%rd79, %rd16, %rd23;
	add.s64 	%rd80, %rd79, %rd86;
	shl.b64 	%rd81, %rd80, 2;
	add.s64 	%rd82, %rd2, %rd81;
	st.global.f32 	[%rd82], %f149;
$L__BB1_28:
	add.s64 	%rd87, %rd87, %rd8;
	setp.lt.u64 	%p17, %rd87, %rd22;
	@%p17 bra 	$L__BB1_4;
$L__BB1_29:
	add.s64 	%rd86, %rd86, %rd7;
	setp.lt.u64 	%p18, %rd86, %rd23;
	@%p18 bra 	$L__BB1_2;
$L__BB1_30:
	ret;
}
)ptx";
