use super::vector::Vector;

/// An eigenvalue of the Hessian.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Eigenvalue {
    /// The eigenvalue.
    pub value: f64,
    /// |H v - value v| of its eigenvector v, of length 1: some eigenvalue is no farther than that.
    pub residual: f64,
}

/// Lanczos iteration on a symmetric matrix of which only products are known, with each vector made
/// orthogonal to all before it. (Golub and Van Loan, Matrix Computations, section 10.3.)
#[derive(Default)]
pub(super) struct Lanczos {
    /// Orthonormal.
    basis: Vec<Vector>,
    /// The matrix in that basis: its diagonal, and what is beside it.
    diagonal: Vec<f64>,
    beside: Vec<f64>,
    /// What the last product has outside the basis, and its length.
    rest: Option<(Vector, f64)>,
}

impl Lanczos {
    /// The vector to multiply next, of length 1. Where the basis spans all that the start leads to,
    /// it is a new start.
    pub(super) fn next_vector(&mut self, start: &mut impl FnMut() -> Vector) -> Vector {
        /// What differences of gradients may leave of nothing, relative to the eigenvalues.
        const NOTHING: f64 = 1e-6;
        let largest = self
            .diagonal
            .iter()
            .fold(0.0f64, |most, a| most.max(a.abs()));
        match self.rest.take() {
            Some((rest, length)) if length > NOTHING * largest => {
                self.beside.push(length);
                rest.scaled(1.0 / length)
            }
            before => {
                if before.is_some() {
                    self.beside.push(0.0);
                }
                let vector = self.outside(start());
                let length = vector.norm();
                vector.scaled(1.0 / length)
            }
        }
    }

    /// Takes the vector and its product with the matrix.
    pub(super) fn push(&mut self, vector: Vector, product: Vector) {
        self.diagonal.push(vector.dot(&product));
        self.basis.push(vector);
        let rest = self.outside(product);
        let length = rest.norm();
        self.rest = Some((rest, length));
    }

    /// The largest eigenvalues so far, in descending order.
    pub(super) fn eigenvalues(&self, count: usize) -> Vec<Eigenvalue> {
        let size = self.diagonal.len();
        let entry = |row: usize, column: usize| match row.abs_diff(column) {
            0 => self.diagonal[row],
            1 => self.beside[row.min(column)],
            _ => 0.0,
        };
        let matrix = (0..size).map(|row| (0..size).map(|column| entry(row, column)).collect());
        let length = self.rest.as_ref().map_or(0.0, |(_, length)| *length);
        let mut all: Vec<Eigenvalue> = (jacobi(matrix.collect()).into_iter())
            .map(|(value, vector)| Eigenvalue {
                value,
                residual: length * vector[size - 1].abs(),
            })
            .collect();
        all.sort_by(|a, b| b.value.total_cmp(&a.value));
        all.truncate(count);
        all
    }

    /// What a vector has outside the basis. Twice, for what rounding leaves of the first time.
    fn outside(&self, mut vector: Vector) -> Vector {
        for _ in 0..2 {
            for base in &self.basis {
                let along = vector.dot(base);
                vector = vector.plus(base, -along);
            }
        }
        vector
    }
}

/// The eigenvalues and eigenvectors of a small symmetric matrix, in no order, by Jacobi's rotations.
/// (Golub and Van Loan, section 8.5. A crate for it would have Burn built with other features.)
fn jacobi(mut matrix: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    const MOST_SWEEPS: usize = 50;
    let size = matrix.len();
    // The vectors are its rows.
    let mut vectors: Vec<Vec<f64>> = (0..size)
        .map(|row| (0..size).map(|column| f64::from(row == column)).collect())
        .collect();
    for _ in 0..MOST_SWEEPS {
        let mut rotated = false;
        for p in 0..size {
            for q in p + 1..size {
                let (beside, scale) = (matrix[p][q], matrix[p][p].abs() + matrix[q][q].abs());
                if beside.abs() <= f64::EPSILON * 1e-2 * scale {
                    continue;
                }
                rotated = true;
                let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * beside);
                let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let sine = tangent * cosine;
                let turn = |a: f64, b: f64| (cosine * a - sine * b, sine * a + cosine * b);
                for row in &mut matrix {
                    (row[p], row[q]) = turn(row[p], row[q]);
                }
                for rows in [&mut matrix, &mut vectors] {
                    let (before, after) = rows.split_at_mut(q);
                    for (a, b) in before[p].iter_mut().zip(&mut after[0]) {
                        (*a, *b) = turn(*a, *b);
                    }
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let diagonal = matrix.iter().enumerate().map(|(index, row)| row[index]);
    diagonal.zip(vectors).collect()
}
