//! scratch
use minassa_programme::codec::*;
fn main() {
    let mut seed = 1u32;
    let mut rnd = move || { seed = seed.wrapping_mul(1664525).wrapping_add(1013904223); (seed >> 8) as f32 / 16777216.0 };
    let n = 960 * 1000;
    // AM-modulated harmonic voice
    let sig: Vec<f32> = (0..n).map(|i| { let t = i as f32 / 48000.0; let f = 130.0; let mut s = 0.0; for k in 1..20 { s += (t * f * k as f32 * 6.2831853).sin() / k as f32 } s * 0.1 * (0.6 + 0.4 * (t * 4.0 * 6.28).sin()) + (rnd() - 0.5) * 0.01 }).collect();
    let tone: Vec<f32> = (0..n).map(|i| (i as f64 * 600.0 / 48000.0 * std::f64::consts::TAU).sin() as f32 * 0.2).collect();
    for (name, sig) in [("voice", &sig), ("tone", &tone)] {
    for lib in libs() { for fec in [0u8, 15] { for conversation in [true, false] {
        let s = OpusSettings { bitrate: 32000, complexity: 5, constant: false, fec_loss_percent: fec, conversation };
        let mut e = lib.encoder(s).unwrap();
        let packets: Vec<_> = sig.chunks_exact(960).map(|f| e.encode(f.try_into().unwrap()).unwrap()).collect();
        for dlib in libs() {
        let mut res = vec![];
        for loss in [0.0, 0.1] {
            let mut d = dlib.decoder().unwrap();
            let mut room = [0.0; MAX_PACKET_SAMPLES];
            let mut out = vec![];
            let mut seed = 77u64;
            let mut lost = 0.0;
            let mut prev_lost = false;
            for p in &packets {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let l = ((seed >> 40) as f64 / 16777216.0) < loss;
                if l { let mut x = [0.0; 960]; d.conceal(&mut x).unwrap(); lost += x.iter().map(|s| s*s).sum::<f32>() / 960.0; out.extend(x); }
                else { let k = d.decode(p, &mut room).unwrap(); out.extend(&room[..k]); }
                prev_lost = l;
            }
            let _ = (prev_lost, lost);
            let pw: f64 = out[48000..].iter().map(|s| (*s as f64).powi(2)).sum::<f64>() / (out.len() - 48000) as f64;
            let pk = out.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            res.push(format!("{:.2} dB peak {pk:.2}", 10.0 * pw.log10()));
        }
        println!("{name} enc {lib:?} dec {dlib:?} fec {fec} conv {conversation} toc {:02x}: {res:?}", packets[500][0] >> 3);
        }
    }}}
    }
}
fn libs() -> Vec<OpusLibrary> { vec![OpusLibrary::Ropus, #[cfg(feature = "libopus")] OpusLibrary::Libopus] }
