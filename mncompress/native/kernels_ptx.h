// Generated from kernels.cu, which says how, by nvcc release 13.0
constexpr char kKernelsPtx[] = R"ptx(
.version 6.0
.target sm_60
.address_size 64
.extern .shared .align 16 .b8 staged[];
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
	.reg .pred 	%p<35>;
	.reg .f32 	%f<104>;
	.reg .b32 	%r<24>;
	.reg .b64 	%rd<109>;
	ld.param.u64 	%rd35, [mnc_cubic_spline_param_0];
	ld.param.u64 	%rd36, [mnc_cubic_spline_param_1];
	ld.param.u64 	%rd37, [mnc_cubic_spline_param_2];
	ld.param.u64 	%rd38, [mnc_cubic_spline_param_3];
	mov.u32 	%r2, %ntid.x;
	cvt.u64.u32 	%rd1, %r2;
	mov.u32 	%r3, %ctaid.y;
	mul.wide.u32 	%rd41, %r3, %r2;
	mov.u32 	%r4, %tid.x;
	cvt.u64.u32 	%rd42, %r4;
	add.s64 	%rd105, %rd41, %rd42;
	setp.ge.u64 	%p1, %rd105, %rd38;
	@%p1 bra 	$L__BB0_30;
	mov.u32 	%r5, %ntid.y;
	cvt.u64.u32 	%rd3, %r5;
	mul.lo.s64 	%rd4, %rd3, %rd38;
	mov.u32 	%r6, %ctaid.x;
	mul.wide.u32 	%rd43, %r5, %r6;
	shl.b64 	%rd44, %rd43, 2;
	mov.u32 	%r7, %tid.y;
	cvt.u64.u32 	%rd45, %r7;
	add.s64 	%rd5, %rd44, %rd45;
	mul.lo.s64 	%rd6, %rd5, %rd38;
	mul.lo.s32 	%r8, %r5, 3;
	cvt.u64.u32 	%rd7, %r8;
	mov.u32 	%r9, %nctaid.x;
	shl.b32 	%r10, %r9, 2;
	cvt.u64.u32 	%rd46, %r10;
	mul.wide.u32 	%rd47, %r9, %r5;
	shl.b64 	%rd8, %rd47, 2;
	add.s64 	%rd9, %rd5, %rd7;
	add.s64 	%rd10, %rd5, %rd3;
	shl.b64 	%rd11, %rd4, 1;
	shl.b32 	%r11, %r5, 1;
	cvt.u64.u32 	%rd12, %r11;
	add.s64 	%rd13, %rd5, %rd12;
	mul.lo.s64 	%rd14, %rd4, 3;
	mul.lo.s64 	%rd15, %rd4, %rd46;
	add.s64 	%rd16, %rd15, %rd4;
	add.s64 	%rd17, %rd16, %rd4;
	add.s64 	%rd18, %rd17, %rd4;
	mov.u32 	%r12, %nctaid.y;
	cvt.u64.u32 	%rd48, %r12;
	mul.lo.s64 	%rd19, %rd48, %rd1;
	cvta.to.global.u64 	%rd20, %rd35;
	cvta.to.global.u64 	%rd21, %rd36;
	shl.b64 	%rd67, %rd18, 2;
$L__BB0_2:
	add.s64 	%rd23, %rd105, %rd6;
	shl.b64 	%rd49, %rd23, 2;
	add.s64 	%rd108, %rd20, %rd49;
	setp.ge.u64 	%p2, %rd9, %rd37;
	setp.ge.u64 	%p3, %rd5, %rd37;
	mov.f32 	%f98, 0f00000000;
	and.pred  	%p4, %p2, %p3;
	mov.f32 	%f99, %f98;
	@%p4 bra 	$L__BB0_4;
	ld.global.f32 	%f99, [%rd108];
$L__BB0_4:
	setp.ge.u64 	%p6, %rd10, %rd37;
	and.pred  	%p7, %p2, %p6;
	@%p7 bra 	$L__BB0_6;
	shl.b64 	%rd50, %rd4, 2;
	add.s64 	%rd51, %rd108, %rd50;
	ld.global.f32 	%f98, [%rd51];
$L__BB0_6:
	setp.ge.u64 	%p9, %rd13, %rd37;
	mov.f32 	%f96, 0f00000000;
	and.pred  	%p10, %p2, %p9;
	mov.f32 	%f97, %f96;
	@%p10 bra 	$L__BB0_8;
	shl.b64 	%rd52, %rd11, 2;
	add.s64 	%rd53, %rd108, %rd52;
	ld.global.f32 	%f97, [%rd53];
$L__BB0_8:
	@%p2 bra 	$L__BB0_10;
	shl.b64 	%rd54, %rd14, 2;
	add.s64 	%rd55, %rd108, %rd54;
	ld.global.f32 	%f96, [%rd55];
$L__BB0_10:
	ld.param.u64 	%rd98, [mnc_cubic_spline_param_5];
	shl.b64 	%rd57, %rd105, 3;
	add.s64 	%rd56, %rd98, %rd57;
	ld.global.nc.v2.f32 {%f32,%f33}, [%rd56];
	@%p3 bra 	$L__BB0_29;
	add.s64 	%rd107, %rd21, %rd49;
	mov.u64 	%rd106, %rd5;
$L__BB0_12:
	add.s64 	%rd30, %rd106, %rd8;
	add.s64 	%rd31, %rd30, %rd7;
	setp.ge.u64 	%p13, %rd31, %rd37;
	setp.ge.u64 	%p14, %rd30, %rd37;
	mov.f32 	%f101, 0f00000000;
	and.pred  	%p15, %p13, %p14;
	mov.f32 	%f100, %f101;
	@%p15 bra 	$L__BB0_14;
	shl.b64 	%rd59, %rd15, 2;
	add.s64 	%rd60, %rd108, %rd59;
	ld.global.f32 	%f100, [%rd60];
$L__BB0_14:
	add.s64 	%rd61, %rd30, %rd3;
	setp.ge.u64 	%p16, %rd61, %rd37;
	and.pred  	%p18, %p13, %p16;
	@%p18 bra 	$L__BB0_16;
	add.s64 	%rd102, %rd15, %rd4;
	shl.b64 	%rd62, %rd102, 2;
	add.s64 	%rd63, %rd108, %rd62;
	ld.global.f32 	%f101, [%rd63];
$L__BB0_16:
	add.s64 	%rd64, %rd30, %rd12;
	setp.ge.u64 	%p19, %rd64, %rd37;
	mov.f32 	%f103, 0f00000000;
	and.pred  	%p21, %p13, %p19;
	mov.f32 	%f102, %f103;
	@%p21 bra 	$L__BB0_18;
	add.s64 	%rd101, %rd15, %rd4;
	add.s64 	%rd100, %rd101, %rd4;
	shl.b64 	%rd65, %rd100, 2;
	add.s64 	%rd66, %rd108, %rd65;
	ld.global.f32 	%f102, [%rd66];
$L__BB0_18:
	@%p13 bra 	$L__BB0_20;
	add.s64 	%rd68, %rd108, %rd67;
	ld.global.f32 	%f103, [%rd68];
$L__BB0_20:
	mov.u32 	%r23, %ntid.y;
	mul.lo.s32 	%r22, %r23, 3;
	cvt.u64.u32 	%rd104, %r22;
	add.s64 	%rd103, %rd106, %rd104;
	ld.param.u32 	%r21, [mnc_cubic_spline_param_6];
	ld.param.u64 	%rd99, [mnc_cubic_spline_param_4];
	cvt.rn.f32.u32 	%f91, %r21;
	sub.f32 	%f54, %f99, %f32;
	mul.rn.f32 	%f55, %f54, %f33;
	mov.f32 	%f56, 0f00000000;
	max.f32 	%f57, %f55, %f56;
	min.f32 	%f58, %f57, %f91;
	cvt.rmi.f32.f32 	%f59, %f58;
	sub.f32 	%f60, %f55, %f59;
	cvt.sat.f32.f32 	%f61, %f60;
	cvt.rzi.u32.f32 	%r13, %f59;
	min.u32 	%r14, %r13, %r21;
	cvt.u64.u32 	%rd73, %r14;
	mul.lo.s64 	%rd74, %rd73, %rd38;
	add.s64 	%rd75, %rd74, %rd105;
	shl.b64 	%rd76, %rd75, 4;
	add.s64 	%rd69, %rd99, %rd76;
	ld.global.nc.v4.f32 {%f38,%f39,%f40,%f41}, [%rd69];
	sub.f32 	%f62, %f98, %f32;
	mul.rn.f32 	%f63, %f62, %f33;
	max.f32 	%f64, %f63, %f56;
	min.f32 	%f65, %f64, %f91;
	cvt.rmi.f32.f32 	%f66, %f65;
	sub.f32 	%f67, %f63, %f66;
	cvt.sat.f32.f32 	%f68, %f67;
	cvt.rzi.u32.f32 	%r15, %f66;
	min.u32 	%r16, %r15, %r21;
	cvt.u64.u32 	%rd77, %r16;
	mul.lo.s64 	%rd78, %rd77, %rd38;
	add.s64 	%rd79, %rd78, %rd105;
	shl.b64 	%rd80, %rd79, 4;
	add.s64 	%rd70, %rd99, %rd80;
	ld.global.nc.v4.f32 {%f42,%f43,%f44,%f45}, [%rd70];
	sub.f32 	%f69, %f97, %f32;
	mul.rn.f32 	%f70, %f69, %f33;
	max.f32 	%f71, %f70, %f56;
	min.f32 	%f72, %f71, %f91;
	cvt.rmi.f32.f32 	%f73, %f72;
	sub.f32 	%f74, %f70, %f73;
	cvt.sat.f32.f32 	%f75, %f74;
	cvt.rzi.u32.f32 	%r17, %f73;
	min.u32 	%r18, %r17, %r21;
	cvt.u64.u32 	%rd81, %r18;
	mul.lo.s64 	%rd82, %rd81, %rd38;
	add.s64 	%rd83, %rd82, %rd105;
	shl.b64 	%rd84, %rd83, 4;
	add.s64 	%rd71, %rd99, %rd84;
	ld.global.nc.v4.f32 {%f46,%f47,%f48,%f49}, [%rd71];
	sub.f32 	%f76, %f96, %f32;
	mul.rn.f32 	%f77, %f76, %f33;
	max.f32 	%f78, %f77, %f56;
	min.f32 	%f79, %f78, %f91;
	cvt.rmi.f32.f32 	%f80, %f79;
	sub.f32 	%f81, %f77, %f80;
	cvt.sat.f32.f32 	%f82, %f81;
	cvt.rzi.u32.f32 	%r19, %f80;
	min.u32 	%r20, %r19, %r21;
	cvt.u64.u32 	%rd85, %r20;
	mul.lo.s64 	%rd86, %rd85, %rd38;
	add.s64 	%rd87, %rd86, %rd105;
	shl.b64 	%rd88, %rd87, 4;
	add.s64 	%rd72, %rd99, %rd88;
	ld.global.nc.v4.f32 {%f50,%f51,%f52,%f53}, [%rd72];
	fma.rn.f32 	%f83, %f61, %f41, %f40;
	fma.rn.f32 	%f84, %f61, %f83, %f39;
	fma.rn.f32 	%f24, %f60, %f84, %f38;
	fma.rn.f32 	%f85, %f68, %f45, %f44;
	fma.rn.f32 	%f86, %f68, %f85, %f43;
	fma.rn.f32 	%f25, %f67, %f86, %f42;
	fma.rn.f32 	%f87, %f75, %f49, %f48;
	fma.rn.f32 	%f88, %f75, %f87, %f47;
	fma.rn.f32 	%f26, %f74, %f88, %f46;
	fma.rn.f32 	%f89, %f82, %f53, %f52;
	fma.rn.f32 	%f90, %f82, %f89, %f51;
	fma.rn.f32 	%f27, %f81, %f90, %f50;
	setp.ge.u64 	%p23, %rd106, %rd37;
	setp.ge.u64 	%p24, %rd103, %rd37;
	and.pred  	%p25, %p24, %p23;
	@%p25 bra 	$L__BB0_22;
	st.global.f32 	[%rd107], %f24;
$L__BB0_22:
	add.s64 	%rd89, %rd106, %rd3;
	setp.ge.u64 	%p27, %rd89, %rd37;
	and.pred  	%p28, %p24, %p27;
	@%p28 bra 	$L__BB0_24;
	shl.b64 	%rd90, %rd4, 2;
	add.s64 	%rd91, %rd107, %rd90;
	st.global.f32 	[%rd91], %f25;
$L__BB0_24:
	add.s64 	%rd92, %rd106, %rd12;
	setp.ge.u64 	%p30, %rd92, %rd37;
	and.pred  	%p31, %p24, %p30;
	@%p31 bra 	$L__BB0_26;
	shl.b64 	%rd93, %rd11, 2;
	add.s64 	%rd94, %rd107, %rd93;
	st.global.f32 	[%rd94], %f26;
$L__BB0_26:
	@%p24 bra 	$L__BB0_28;
	shl.b64 	%rd95, %rd14, 2;
	add.s64 	%rd96, %rd107, %rd95;
	st.global.f32 	[%rd96], %f27;
$L__BB0_28:
	setp.lt.u64 	%p33, %rd30, %rd37;
	shl.b64 	%rd97, %rd15, 2;
	add.s64 	%rd108, %rd108, %rd97;
	add.s64 	%rd107, %rd107, %rd97;
	mov.f32 	%f96, %f103;
	mov.f32 	%f97, %f102;
	mov.f32 	%f98, %f101;
	mov.f32 	%f99, %f100;
	mov.u64 	%rd106, %rd30;
	@%p33 bra 	$L__BB0_12;
$L__BB0_29:
	add.s64 	%rd105, %rd105, %rd19;
	setp.lt.u64 	%p34, %rd105, %rd38;
	@%p34 bra 	$L__BB0_2;
$L__BB0_30:
	ret;
}
.visible .entry mnc_cubic_spline_staged(
	.param .u64 mnc_cubic_spline_staged_param_0,
	.param .u64 mnc_cubic_spline_staged_param_1,
	.param .u64 mnc_cubic_spline_staged_param_2,
	.param .u64 mnc_cubic_spline_staged_param_3,
	.param .u64 mnc_cubic_spline_staged_param_4,
	.param .u64 mnc_cubic_spline_staged_param_5,
	.param .u32 mnc_cubic_spline_staged_param_6
)
.maxntid 1024, 1, 1
.minnctapersm 1
{
	.reg .pred 	%p<20>;
	.reg .f32 	%f<141>;
	.reg .b32 	%r<80>;
	.reg .b64 	%rd<132>;
	ld.param.u64 	%rd28, [mnc_cubic_spline_staged_param_0];
	ld.param.u64 	%rd29, [mnc_cubic_spline_staged_param_1];
	ld.param.u64 	%rd31, [mnc_cubic_spline_staged_param_3];
	ld.param.u64 	%rd33, [mnc_cubic_spline_staged_param_5];
	ld.param.u32 	%r1, [mnc_cubic_spline_staged_param_6];
	mov.u32 	%r2, %ctaid.y;
	mov.u32 	%r3, %ntid.x;
	mul.wide.u32 	%rd127, %r2, %r3;
	setp.ge.u64 	%p1, %rd127, %rd31;
	@%p1 bra 	$L__BB1_33;
	cvt.rn.f32.u32 	%f1, %r1;
	mov.u32 	%r4, %tid.x;
	mov.u32 	%r5, %ntid.y;
	cvta.to.global.u64 	%rd43, %rd28;
	cvta.to.global.u64 	%rd82, %rd29;
$L__BB1_2:
	mov.u32 	%r79, %ctaid.x;
	ld.param.u64 	%rd126, [mnc_cubic_spline_staged_param_2];
	cvt.u64.u32 	%rd34, %r4;
	add.s64 	%rd35, %rd127, %rd34;
	setp.lt.u64 	%p2, %rd35, %rd31;
	selp.b64 	%rd36, %rd34, 0, %p2;
	add.s64 	%rd3, %rd36, %rd127;
	selp.b64 	%rd4, %rd126, 0, %p2;
	cvt.u64.u32 	%rd37, %r5;
	mul.wide.u32 	%rd38, %r5, %r79;
	shl.b64 	%rd39, %rd38, 2;
	mov.u32 	%r7, %tid.y;
	cvt.u64.u32 	%rd128, %r7;
	add.s64 	%rd129, %rd39, %rd128;
	mul.lo.s64 	%rd42, %rd129, %rd31;
	add.s64 	%rd5, %rd3, %rd42;
	shl.b64 	%rd44, %rd5, 2;
	add.s64 	%rd131, %rd43, %rd44;
	mul.lo.s32 	%r8, %r5, 3;
	cvt.u64.u32 	%rd45, %r8;
	add.s64 	%rd46, %rd129, %rd45;
	setp.lt.u64 	%p3, %rd46, %rd4;
	mul.lo.s64 	%rd47, %rd31, %rd37;
	shl.b64 	%rd48, %rd47, 2;
	add.s64 	%rd7, %rd131, %rd48;
	add.s64 	%rd8, %rd7, %rd48;
	@%p3 bra 	$L__BB1_9;
	bra.uni 	$L__BB1_3;
$L__BB1_9:
	ld.global.f32 	%f140, [%rd131];
	ld.global.f32 	%f139, [%rd7];
	ld.global.f32 	%f138, [%rd8];
	add.s64 	%rd68, %rd8, %rd48;
	ld.global.f32 	%f137, [%rd68];
	bra.uni 	$L__BB1_10;
$L__BB1_3:
	mov.u32 	%r77, %tid.y;
	cvt.u64.u32 	%rd51, %r77;
	add.s64 	%rd52, %rd39, %rd51;
	setp.ge.u64 	%p4, %rd52, %rd4;
	mov.f32 	%f139, 0f00000000;
	mov.f32 	%f140, %f139;
	@%p4 bra 	$L__BB1_5;
	ld.global.f32 	%f140, [%rd131];
$L__BB1_5:
	add.s64 	%rd58, %rd52, %rd37;
	setp.ge.u64 	%p5, %rd58, %rd4;
	@%p5 bra 	$L__BB1_7;
	ld.global.f32 	%f139, [%rd7];
$L__BB1_7:
	shl.b32 	%r18, %r5, 1;
	cvt.u64.u32 	%rd63, %r18;
	add.s64 	%rd64, %rd52, %rd63;
	setp.ge.u64 	%p6, %rd64, %rd4;
	mov.f32 	%f138, 0f00000000;
	mov.f32 	%f137, 0f00000000;
	@%p6 bra 	$L__BB1_10;
	ld.global.f32 	%f138, [%rd8];
$L__BB1_10:
	mov.u32 	%r78, %tid.y;
	setp.gt.u32 	%p7, %r78, %r1;
	bar.sync 	0;
	@%p7 bra 	$L__BB1_13;
	cvt.u64.u32 	%rd10, %r1;
$L__BB1_12:
	ld.param.u64 	%rd125, [mnc_cubic_spline_staged_param_4];
	mul.lo.s64 	%rd70, %rd128, %rd31;
	add.s64 	%rd71, %rd70, %rd3;
	shl.b64 	%rd72, %rd71, 4;
	add.s64 	%rd69, %rd125, %rd72;
	cvt.u32.u64 	%r24, %rd128;
	shl.b32 	%r25, %r24, 5;
	cvt.u32.u64 	%r26, %rd34;
	add.s32 	%r27, %r25, %r26;
	shl.b32 	%r28, %r27, 4;
	mov.u32 	%r29, staged;
	add.s32 	%r30, %r29, %r28;
	ld.global.nc.v4.f32 {%f43,%f44,%f45,%f46}, [%rd69];
	st.shared.v4.f32 	[%r30], {%f43, %f44, %f45, %f46};
	add.s64 	%rd128, %rd128, %rd37;
	setp.le.u64 	%p8, %rd128, %rd10;
	@%p8 bra 	$L__BB1_12;
$L__BB1_13:
	bar.sync 	0;
	shl.b64 	%rd74, %rd3, 3;
	add.s64 	%rd73, %rd33, %rd74;
	ld.global.nc.v2.f32 {%f47,%f48}, [%rd73];
	setp.ge.u64 	%p9, %rd129, %rd4;
	@%p9 bra 	$L__BB1_32;
	add.s64 	%rd130, %rd82, %rd44;
$L__BB1_15:
	mov.u64 	%rd17, %rd129;
	mov.f32 	%f20, %f140;
	mov.f32 	%f19, %f139;
	mov.f32 	%f18, %f138;
	mov.f32 	%f17, %f137;
	mov.u32 	%r39, %nctaid.x;
	shl.b32 	%r40, %r39, 2;
	cvt.u64.u32 	%rd86, %r40;
	mul.lo.s64 	%rd87, %rd37, %rd31;
	mul.lo.s64 	%rd20, %rd87, %rd86;
	shl.b64 	%rd88, %rd20, 2;
	add.s64 	%rd131, %rd131, %rd88;
	mul.wide.u32 	%rd89, %r39, %r5;
	shl.b64 	%rd90, %rd89, 2;
	add.s64 	%rd129, %rd17, %rd90;
	add.s64 	%rd91, %rd129, %rd45;
	setp.lt.u64 	%p10, %rd91, %rd4;
	shl.b64 	%rd23, %rd87, 2;
	add.s64 	%rd24, %rd131, %rd23;
	@%p10 bra 	$L__BB1_22;
	bra.uni 	$L__BB1_16;
$L__BB1_22:
	add.s64 	%rd100, %rd24, %rd23;
	ld.global.f32 	%f140, [%rd131];
	ld.global.f32 	%f139, [%rd24];
	ld.global.f32 	%f138, [%rd100];
	add.s64 	%rd104, %rd100, %rd48;
	ld.global.f32 	%f137, [%rd104];
	bra.uni 	$L__BB1_23;
$L__BB1_16:
	setp.ge.u64 	%p11, %rd129, %rd4;
	mov.f32 	%f139, 0f00000000;
	mov.f32 	%f140, %f139;
	@%p11 bra 	$L__BB1_18;
	ld.global.f32 	%f140, [%rd131];
$L__BB1_18:
	add.s64 	%rd93, %rd129, %rd37;
	setp.ge.u64 	%p12, %rd93, %rd4;
	@%p12 bra 	$L__BB1_20;
	ld.global.f32 	%f139, [%rd24];
$L__BB1_20:
	shl.b32 	%r43, %r5, 1;
	cvt.u64.u32 	%rd94, %r43;
	add.s64 	%rd95, %rd129, %rd94;
	setp.ge.u64 	%p13, %rd95, %rd4;
	mov.f32 	%f138, 0f00000000;
	mov.f32 	%f137, 0f00000000;
	@%p13 bra 	$L__BB1_23;
	add.s64 	%rd99, %rd24, %rd48;
	ld.global.f32 	%f138, [%rd99];
$L__BB1_23:
	add.s64 	%rd106, %rd17, %rd45;
	setp.lt.u64 	%p14, %rd106, %rd4;
	sub.f32 	%f54, %f20, %f47;
	mul.rn.f32 	%f55, %f54, %f48;
	mov.f32 	%f56, 0f00000000;
	max.f32 	%f57, %f55, %f56;
	min.f32 	%f58, %f57, %f1;
	cvt.rmi.f32.f32 	%f59, %f58;
	sub.f32 	%f60, %f55, %f59;
	cvt.sat.f32.f32 	%f61, %f60;
	cvt.rzi.u32.f32 	%r49, %f59;
	shl.b32 	%r50, %r49, 5;
	add.s32 	%r51, %r50, %r4;
	shl.b32 	%r52, %r51, 4;
	mov.u32 	%r53, staged;
	add.s32 	%r54, %r53, %r52;
	ld.shared.v4.f32 	{%f62, %f63, %f64, %f65}, [%r54];
	sub.f32 	%f70, %f19, %f47;
	mul.rn.f32 	%f71, %f70, %f48;
	max.f32 	%f72, %f71, %f56;
	min.f32 	%f73, %f72, %f1;
	cvt.rmi.f32.f32 	%f74, %f73;
	sub.f32 	%f75, %f71, %f74;
	cvt.sat.f32.f32 	%f76, %f75;
	cvt.rzi.u32.f32 	%r55, %f74;
	shl.b32 	%r56, %r55, 5;
	add.s32 	%r57, %r56, %r4;
	shl.b32 	%r58, %r57, 4;
	add.s32 	%r59, %r53, %r58;
	ld.shared.v4.f32 	{%f77, %f78, %f79, %f80}, [%r59];
	sub.f32 	%f85, %f18, %f47;
	mul.rn.f32 	%f86, %f85, %f48;
	max.f32 	%f87, %f86, %f56;
	min.f32 	%f88, %f87, %f1;
	cvt.rmi.f32.f32 	%f89, %f88;
	sub.f32 	%f90, %f86, %f89;
	cvt.sat.f32.f32 	%f91, %f90;
	cvt.rzi.u32.f32 	%r60, %f89;
	shl.b32 	%r61, %r60, 5;
	add.s32 	%r62, %r61, %r4;
	shl.b32 	%r63, %r62, 4;
	add.s32 	%r64, %r53, %r63;
	ld.shared.v4.f32 	{%f92, %f93, %f94, %f95}, [%r64];
	sub.f32 	%f100, %f17, %f47;
	mul.rn.f32 	%f101, %f100, %f48;
	max.f32 	%f102, %f101, %f56;
	min.f32 	%f103, %f102, %f1;
	cvt.rmi.f32.f32 	%f104, %f103;
	sub.f32 	%f105, %f101, %f104;
	cvt.sat.f32.f32 	%f106, %f105;
	cvt.rzi.u32.f32 	%r65, %f104;
	shl.b32 	%r66, %r65, 5;
	add.s32 	%r67, %r66, %r4;
	shl.b32 	%r68, %r67, 4;
	add.s32 	%r69, %r53, %r68;
	ld.shared.v4.f32 	{%f107, %f108, %f109, %f110}, [%r69];
	fma.rn.f32 	%f115, %f61, %f65, %f64;
	fma.rn.f32 	%f116, %f61, %f115, %f63;
	fma.rn.f32 	%f34, %f60, %f116, %f62;
	fma.rn.f32 	%f117, %f76, %f80, %f79;
	fma.rn.f32 	%f118, %f76, %f117, %f78;
	fma.rn.f32 	%f35, %f75, %f118, %f77;
	fma.rn.f32 	%f119, %f91, %f95, %f94;
	fma.rn.f32 	%f120, %f91, %f119, %f93;
	fma.rn.f32 	%f36, %f90, %f120, %f92;
	fma.rn.f32 	%f121, %f106, %f110, %f109;
	fma.rn.f32 	%f122, %f106, %f121, %f108;
	fma.rn.f32 	%f37, %f105, %f122, %f107;
	add.s64 	%rd25, %rd130, %rd48;
	@%p14 bra 	$L__BB1_30;
	bra.uni 	$L__BB1_24;
$L__BB1_30:
	st.global.f32 	[%rd130], %f34;
	st.global.f32 	[%rd25], %f35;
	add.s64 	%rd121, %rd25, %rd48;
	st.global.f32 	[%rd121], %f36;
	add.s64 	%rd122, %rd121, %rd48;
	st.global.f32 	[%rd122], %f37;
	bra.uni 	$L__BB1_31;
$L__BB1_24:
	setp.ge.u64 	%p15, %rd17, %rd4;
	@%p15 bra 	$L__BB1_26;
	st.global.f32 	[%rd130], %f34;
$L__BB1_26:
	add.s64 	%rd111, %rd17, %rd37;
	setp.ge.u64 	%p16, %rd111, %rd4;
	@%p16 bra 	$L__BB1_28;
	st.global.f32 	[%rd25], %f35;
$L__BB1_28:
	shl.b32 	%r72, %r5, 1;
	cvt.u64.u32 	%rd112, %r72;
	add.s64 	%rd113, %rd17, %rd112;
	setp.ge.u64 	%p17, %rd113, %rd4;
	@%p17 bra 	$L__BB1_31;
	add.s64 	%rd117, %rd25, %rd48;
	st.global.f32 	[%rd117], %f36;
$L__BB1_31:
	setp.lt.u64 	%p18, %rd129, %rd4;
	add.s64 	%rd130, %rd130, %rd88;
	@%p18 bra 	$L__BB1_15;
$L__BB1_32:
	mov.u32 	%r75, %nctaid.y;
	mul.wide.u32 	%rd124, %r75, %r3;
	add.s64 	%rd127, %rd127, %rd124;
	setp.lt.u64 	%p19, %rd127, %rd31;
	@%p19 bra 	$L__BB1_2;
$L__BB1_33:
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
	.reg .pred 	%p<41>;
	.reg .f32 	%f<185>;
	.reg .b32 	%r<28>;
	.reg .b64 	%rd<116>;
	ld.param.u64 	%rd41, [mnc_piecewise_linear_param_0];
	ld.param.u64 	%rd42, [mnc_piecewise_linear_param_1];
	ld.param.u64 	%rd43, [mnc_piecewise_linear_param_2];
	ld.param.u64 	%rd44, [mnc_piecewise_linear_param_3];
	mov.u32 	%r7, %ntid.x;
	cvt.u64.u32 	%rd1, %r7;
	mov.u32 	%r8, %ctaid.y;
	mul.wide.u32 	%rd48, %r8, %r7;
	mov.u32 	%r9, %tid.x;
	cvt.u64.u32 	%rd49, %r9;
	add.s64 	%rd110, %rd48, %rd49;
	setp.ge.u64 	%p1, %rd110, %rd44;
	@%p1 bra 	$L__BB2_38;
	mov.u32 	%r10, %ntid.y;
	cvt.u64.u32 	%rd3, %r10;
	mul.lo.s64 	%rd4, %rd3, %rd44;
	mov.u32 	%r11, %ctaid.x;
	mul.wide.u32 	%rd50, %r10, %r11;
	shl.b64 	%rd51, %rd50, 2;
	mov.u32 	%r12, %tid.y;
	cvt.u64.u32 	%rd52, %r12;
	add.s64 	%rd5, %rd51, %rd52;
	mul.lo.s64 	%rd6, %rd5, %rd44;
	mul.lo.s32 	%r13, %r10, 3;
	cvt.u64.u32 	%rd7, %r13;
	mov.u32 	%r14, %nctaid.x;
	shl.b32 	%r15, %r14, 2;
	cvt.u64.u32 	%rd53, %r15;
	mul.wide.u32 	%rd54, %r14, %r10;
	shl.b64 	%rd8, %rd54, 2;
	add.s64 	%rd9, %rd5, %rd7;
	add.s64 	%rd10, %rd5, %rd3;
	shl.b64 	%rd11, %rd4, 1;
	shl.b32 	%r16, %r10, 1;
	cvt.u64.u32 	%rd12, %r16;
	add.s64 	%rd13, %rd5, %rd12;
	mul.lo.s64 	%rd14, %rd4, 3;
	mul.lo.s64 	%rd15, %rd4, %rd53;
	add.s64 	%rd16, %rd15, %rd4;
	add.s64 	%rd17, %rd16, %rd4;
	add.s64 	%rd18, %rd17, %rd4;
	shl.b64 	%rd19, %rd44, 1;
	shl.b64 	%rd20, %rd44, 3;
	mov.u32 	%r17, %nctaid.y;
	cvt.u64.u32 	%rd55, %r17;
	mul.lo.s64 	%rd21, %rd55, %rd1;
	cvta.to.global.u64 	%rd22, %rd41;
	cvta.to.global.u64 	%rd23, %rd42;
	shl.b64 	%rd77, %rd18, 2;
	shl.b64 	%rd87, %rd19, 3;
$L__BB2_2:
	add.s64 	%rd25, %rd110, %rd6;
	shl.b64 	%rd56, %rd25, 2;
	add.s64 	%rd113, %rd22, %rd56;
	setp.ge.u64 	%p2, %rd9, %rd43;
	setp.ge.u64 	%p3, %rd5, %rd43;
	mov.f32 	%f167, 0f00000000;
	and.pred  	%p4, %p2, %p3;
	mov.f32 	%f168, %f167;
	@%p4 bra 	$L__BB2_4;
	ld.global.f32 	%f168, [%rd113];
$L__BB2_4:
	setp.ge.u64 	%p6, %rd10, %rd43;
	and.pred  	%p7, %p2, %p6;
	@%p7 bra 	$L__BB2_6;
	shl.b64 	%rd57, %rd4, 2;
	add.s64 	%rd58, %rd113, %rd57;
	ld.global.f32 	%f167, [%rd58];
$L__BB2_6:
	setp.ge.u64 	%p9, %rd13, %rd43;
	mov.f32 	%f165, 0f00000000;
	and.pred  	%p10, %p2, %p9;
	mov.f32 	%f166, %f165;
	@%p10 bra 	$L__BB2_8;
	shl.b64 	%rd59, %rd11, 2;
	add.s64 	%rd60, %rd113, %rd59;
	ld.global.f32 	%f166, [%rd60];
$L__BB2_8:
	@%p2 bra 	$L__BB2_10;
	shl.b64 	%rd61, %rd14, 2;
	add.s64 	%rd62, %rd113, %rd61;
	ld.global.f32 	%f165, [%rd62];
$L__BB2_10:
	ld.param.u64 	%rd101, [mnc_piecewise_linear_param_5];
	ld.param.u64 	%rd100, [mnc_piecewise_linear_param_6];
	shl.b64 	%rd65, %rd110, 2;
	add.s64 	%rd63, %rd100, %rd65;
	ld.global.nc.u32 %r18, [%rd63];
	shl.b64 	%rd66, %rd110, 3;
	add.s64 	%rd64, %rd101, %rd66;
	ld.global.nc.v2.f32 {%f61,%f62}, [%rd64];
	@%p3 bra 	$L__BB2_37;
	ld.param.u64 	%rd102, [mnc_piecewise_linear_param_4];
	add.s64 	%rd112, %rd23, %rd56;
	mov.u64 	%rd111, %rd5;
$L__BB2_12:
	add.s64 	%rd33, %rd111, %rd8;
	add.s64 	%rd34, %rd33, %rd7;
	setp.ge.u64 	%p13, %rd34, %rd43;
	setp.ge.u64 	%p14, %rd33, %rd43;
	mov.f32 	%f170, 0f00000000;
	and.pred  	%p15, %p13, %p14;
	mov.f32 	%f169, %f170;
	@%p15 bra 	$L__BB2_14;
	shl.b64 	%rd69, %rd15, 2;
	add.s64 	%rd70, %rd113, %rd69;
	ld.global.f32 	%f169, [%rd70];
$L__BB2_14:
	add.s64 	%rd71, %rd33, %rd3;
	setp.ge.u64 	%p16, %rd71, %rd43;
	and.pred  	%p18, %p13, %p16;
	@%p18 bra 	$L__BB2_16;
	add.s64 	%rd109, %rd15, %rd4;
	shl.b64 	%rd72, %rd109, 2;
	add.s64 	%rd73, %rd113, %rd72;
	ld.global.f32 	%f170, [%rd73];
$L__BB2_16:
	add.s64 	%rd74, %rd33, %rd12;
	setp.ge.u64 	%p19, %rd74, %rd43;
	mov.f32 	%f172, 0f00000000;
	and.pred  	%p21, %p13, %p19;
	mov.f32 	%f171, %f172;
	@%p21 bra 	$L__BB2_18;
	add.s64 	%rd108, %rd15, %rd4;
	add.s64 	%rd107, %rd108, %rd4;
	shl.b64 	%rd75, %rd107, 2;
	add.s64 	%rd76, %rd113, %rd75;
	ld.global.f32 	%f171, [%rd76];
$L__BB2_18:
	@%p13 bra 	$L__BB2_20;
	add.s64 	%rd78, %rd113, %rd77;
	ld.global.f32 	%f172, [%rd78];
$L__BB2_20:
	fma.rn.f32 	%f182, %f62, %f168, %f61;
	fma.rn.f32 	%f181, %f62, %f167, %f61;
	fma.rn.f32 	%f183, %f62, %f166, %f61;
	fma.rn.f32 	%f184, %f62, %f165, %f61;
	setp.eq.s32 	%p23, %r18, 0;
	@%p23 bra 	$L__BB2_28;
	fma.rn.f32 	%f184, %f62, %f165, %f61;
	fma.rn.f32 	%f183, %f62, %f166, %f61;
	fma.rn.f32 	%f182, %f62, %f168, %f61;
	fma.rn.f32 	%f181, %f62, %f167, %f61;
	shl.b64 	%rd104, %rd110, 3;
	add.s64 	%rd115, %rd102, %rd104;
	add.s32 	%r24, %r18, -1;
	setp.lt.u32 	%p24, %r24, 3;
	@%p24 bra 	$L__BB2_24;
	fma.rn.f32 	%f184, %f62, %f165, %f61;
	fma.rn.f32 	%f183, %f62, %f166, %f61;
	fma.rn.f32 	%f182, %f62, %f168, %f61;
	fma.rn.f32 	%f181, %f62, %f167, %f61;
	and.b32  	%r26, %r18, 3;
	sub.s32 	%r27, %r18, %r26;
	shl.b64 	%rd106, %rd110, 3;
	add.s64 	%rd115, %rd102, %rd106;
$L__BB2_23:
	ld.global.nc.v2.f32 {%f67,%f68}, [%rd115];
	sub.f32 	%f75, %f168, %f67;
	mov.f32 	%f76, 0f00000000;
	max.f32 	%f77, %f75, %f76;
	fma.rn.f32 	%f78, %f68, %f77, %f182;
	sub.f32 	%f79, %f167, %f67;
	max.f32 	%f80, %f79, %f76;
	fma.rn.f32 	%f81, %f68, %f80, %f181;
	sub.f32 	%f82, %f166, %f67;
	max.f32 	%f83, %f82, %f76;
	fma.rn.f32 	%f84, %f68, %f83, %f183;
	sub.f32 	%f85, %f165, %f67;
	max.f32 	%f86, %f85, %f76;
	fma.rn.f32 	%f87, %f68, %f86, %f184;
	add.s64 	%rd80, %rd115, %rd20;
	ld.global.nc.v2.f32 {%f69,%f70}, [%rd80];
	sub.f32 	%f88, %f168, %f69;
	max.f32 	%f89, %f88, %f76;
	fma.rn.f32 	%f90, %f70, %f89, %f78;
	sub.f32 	%f91, %f167, %f69;
	max.f32 	%f92, %f91, %f76;
	fma.rn.f32 	%f93, %f70, %f92, %f81;
	sub.f32 	%f94, %f166, %f69;
	max.f32 	%f95, %f94, %f76;
	fma.rn.f32 	%f96, %f70, %f95, %f84;
	sub.f32 	%f97, %f165, %f69;
	max.f32 	%f98, %f97, %f76;
	fma.rn.f32 	%f99, %f70, %f98, %f87;
	add.s64 	%rd81, %rd80, %rd20;
	ld.global.nc.v2.f32 {%f71,%f72}, [%rd81];
	sub.f32 	%f100, %f168, %f71;
	max.f32 	%f101, %f100, %f76;
	fma.rn.f32 	%f102, %f72, %f101, %f90;
	sub.f32 	%f103, %f167, %f71;
	max.f32 	%f104, %f103, %f76;
	fma.rn.f32 	%f105, %f72, %f104, %f93;
	sub.f32 	%f106, %f166, %f71;
	max.f32 	%f107, %f106, %f76;
	fma.rn.f32 	%f108, %f72, %f107, %f96;
	sub.f32 	%f109, %f165, %f71;
	max.f32 	%f110, %f109, %f76;
	fma.rn.f32 	%f111, %f72, %f110, %f99;
	add.s64 	%rd82, %rd81, %rd20;
	add.s64 	%rd115, %rd82, %rd20;
	ld.global.nc.v2.f32 {%f73,%f74}, [%rd82];
	sub.f32 	%f112, %f168, %f73;
	max.f32 	%f113, %f112, %f76;
	fma.rn.f32 	%f182, %f74, %f113, %f102;
	sub.f32 	%f114, %f167, %f73;
	max.f32 	%f115, %f114, %f76;
	fma.rn.f32 	%f181, %f74, %f115, %f105;
	sub.f32 	%f116, %f166, %f73;
	max.f32 	%f117, %f116, %f76;
	fma.rn.f32 	%f183, %f74, %f117, %f108;
	sub.f32 	%f118, %f165, %f73;
	max.f32 	%f119, %f118, %f76;
	fma.rn.f32 	%f184, %f74, %f119, %f111;
	add.s32 	%r27, %r27, -4;
	setp.ne.s32 	%p25, %r27, 0;
	@%p25 bra 	$L__BB2_23;
$L__BB2_24:
	and.b32  	%r19, %r18, 3;
	setp.eq.s32 	%p26, %r19, 0;
	@%p26 bra 	$L__BB2_28;
	and.b32  	%r20, %r18, 3;
	setp.eq.s32 	%p27, %r20, 1;
	ld.global.nc.v2.f32 {%f120,%f121}, [%rd115];
	sub.f32 	%f122, %f168, %f120;
	mov.f32 	%f123, 0f00000000;
	max.f32 	%f124, %f122, %f123;
	fma.rn.f32 	%f182, %f121, %f124, %f182;
	sub.f32 	%f125, %f167, %f120;
	max.f32 	%f126, %f125, %f123;
	fma.rn.f32 	%f181, %f121, %f126, %f181;
	sub.f32 	%f127, %f166, %f120;
	max.f32 	%f128, %f127, %f123;
	fma.rn.f32 	%f183, %f121, %f128, %f183;
	sub.f32 	%f129, %f165, %f120;
	max.f32 	%f130, %f129, %f123;
	fma.rn.f32 	%f184, %f121, %f130, %f184;
	@%p27 bra 	$L__BB2_28;
	and.b32  	%r21, %r18, 3;
	setp.eq.s32 	%p28, %r21, 2;
	add.s64 	%rd84, %rd115, %rd20;
	ld.global.nc.v2.f32 {%f131,%f132}, [%rd84];
	sub.f32 	%f133, %f168, %f131;
	max.f32 	%f135, %f133, %f123;
	fma.rn.f32 	%f182, %f132, %f135, %f182;
	sub.f32 	%f136, %f167, %f131;
	max.f32 	%f137, %f136, %f123;
	fma.rn.f32 	%f181, %f132, %f137, %f181;
	sub.f32 	%f138, %f166, %f131;
	max.f32 	%f139, %f138, %f123;
	fma.rn.f32 	%f183, %f132, %f139, %f183;
	sub.f32 	%f140, %f165, %f131;
	max.f32 	%f141, %f140, %f123;
	fma.rn.f32 	%f184, %f132, %f141, %f184;
	@%p28 bra 	$L__BB2_28;
	add.s64 	%rd86, %rd115, %rd87;
	ld.global.nc.v2.f32 {%f142,%f143}, [%rd86];
	sub.f32 	%f144, %f168, %f142;
	mov.f32 	%f145, 0f00000000;
	max.f32 	%f146, %f144, %f145;
	fma.rn.f32 	%f182, %f143, %f146, %f182;
	sub.f32 	%f147, %f167, %f142;
	max.f32 	%f148, %f147, %f145;
	fma.rn.f32 	%f181, %f143, %f148, %f181;
	sub.f32 	%f149, %f166, %f142;
	max.f32 	%f150, %f149, %f145;
	fma.rn.f32 	%f183, %f143, %f150, %f183;
	sub.f32 	%f151, %f165, %f142;
	max.f32 	%f152, %f151, %f145;
	fma.rn.f32 	%f184, %f143, %f152, %f184;
$L__BB2_28:
	mov.u32 	%r23, %ntid.y;
	mul.lo.s32 	%r22, %r23, 3;
	cvt.u64.u32 	%rd98, %r22;
	add.s64 	%rd97, %rd111, %rd98;
	setp.ge.u64 	%p29, %rd111, %rd43;
	setp.ge.u64 	%p30, %rd97, %rd43;
	and.pred  	%p31, %p30, %p29;
	@%p31 bra 	$L__BB2_30;
	st.global.f32 	[%rd112], %f182;
$L__BB2_30:
	add.s64 	%rd88, %rd111, %rd3;
	setp.ge.u64 	%p33, %rd88, %rd43;
	and.pred  	%p34, %p30, %p33;
	@%p34 bra 	$L__BB2_32;
	shl.b64 	%rd89, %rd4, 2;
	add.s64 	%rd90, %rd112, %rd89;
	st.global.f32 	[%rd90], %f181;
$L__BB2_32:
	add.s64 	%rd91, %rd111, %rd12;
	setp.ge.u64 	%p36, %rd91, %rd43;
	and.pred  	%p37, %p30, %p36;
	@%p37 bra 	$L__BB2_34;
	shl.b64 	%rd92, %rd11, 2;
	add.s64 	%rd93, %rd112, %rd92;
	st.global.f32 	[%rd93], %f183;
$L__BB2_34:
	@%p30 bra 	$L__BB2_36;
	shl.b64 	%rd94, %rd14, 2;
	add.s64 	%rd95, %rd112, %rd94;
	st.global.f32 	[%rd95], %f184;
$L__BB2_36:
	setp.lt.u64 	%p39, %rd33, %rd43;
	shl.b64 	%rd96, %rd15, 2;
	add.s64 	%rd112, %rd112, %rd96;
	add.s64 	%rd113, %rd113, %rd96;
	mov.f32 	%f165, %f172;
	mov.f32 	%f166, %f171;
	mov.f32 	%f167, %f170;
	mov.f32 	%f168, %f169;
	mov.u64 	%rd111, %rd33;
	@%p39 bra 	$L__BB2_12;
$L__BB2_37:
	ld.param.u64 	%rd99, [mnc_piecewise_linear_param_3];
	add.s64 	%rd110, %rd110, %rd21;
	setp.lt.u64 	%p40, %rd110, %rd99;
	@%p40 bra 	$L__BB2_2;
$L__BB2_38:
	ret;
}
)ptx";
