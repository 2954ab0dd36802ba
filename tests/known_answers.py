"""Known answers: inputs, truths, and where the truths come from."""

import torch
from torch import Tensor


def _tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class PPCA_TRUTH:
    """x = W z + mu + sigma e: everything is Gaussian, so every figure is a closed form."""

    # The inputs are arbitrary.
    W = _tensor(
        [
            [0.8414709848078965, 0.1411200080598672],
            [0.9092974268256817, -0.7568024953079282],
            [0.1411200080598672, -0.9589242746631385],
            [-0.7568024953079282, -0.27941549819892586],
            [-0.9589242746631385, 0.6569865987187891],
        ]
    )
    mu = _tensor([0.0, 0.1, 0.2, 0.30000000000000004, 0.4])
    sigma2 = 0.25
    X = _tensor(
        [
            [1.0, 0.7648421872844885, 0.16996714290024104, -0.5048461045998571, -0.9422223406686581],
            [0.6483627670417677, -0.15461339315462955, -0.8848724586494945, -1.1989621803279353, -0.9491612542973001],
            [-0.5826055711659993, -1.2657009988238856, -1.3535174696112455, -0.8047535251465768, 0.12249857681522495],
            [-1.5839879945607127, -1.356960050736653, -0.491732591965471, 0.6047643883407684, 1.4168312271061103],
            [-1.1765585175545015, -0.022299594233203008, 1.1424471766967426, 1.7698831891966522, 1.5649154826296856],
            [0.5673243709264525, 1.6694255696783196, 1.9863698375163852, 1.3690933328856132, 0.1079108411252995],
        ]
    )
    # log N(x; mu, W W^T + sigma2 I), each datum
    log_p_x = _tensor(
        [
            -4.432774555004714,
            -7.62051313431769,
            -9.329194476900213,
            -5.749503279202662,
            -5.734404646551343,
            -8.186061076496182,
        ]
    )
    log_p_total = -41.0524511684728
    # z | x ~ N(M^-1 W^T (x - mu), sigma2 M^-1), M = W^T W + sigma2 I
    post_mean = _tensor(
        [
            [1.0389107971620353, 0.0778238592667004],
            [1.0988743728990484, 0.9204990086463514],
            [0.15328228466141597, 1.2058613166983383],
            [-1.0614566774580556, 0.41066954341123174],
            [-1.278588787570862, -0.9061961323733164],
            [-0.003506329292848813, -1.459231862794645],
        ]
    )
    post_cov = _tensor([[0.09118331304781889, 0.04508270624220279], [0.0450827062422028, 0.1323295287449861]])
    # Best factorised q: precision L = M / sigma2 keeps its diagonal, KL = (sum log L_ii - log det L) / 2 a datum
    meanfield_gap = 0.092226516081372
    # 1 / sqrt(L_ii)
    meanfield_sd = _tensor([0.2753621328456381, 0.3317224894387842])
    # sum_n log N(x_n; mu, sigma2 I) - tr(W W^T) / (2 sigma2): E_prior[log p(x | z)]
    elbo_q_prior = -137.16867010808815


class CONJUGATE_TRUTH:
    """theta ~ N(0, 1), y_i ~ N(theta, 1): log N(y; 0, I + 1 1^T); the posterior is N(sum y / 6, 1 / 6)."""

    y = _tensor([1.2, -0.4, 0.7, 2.1, 0.3])
    log_evidence = -7.51807240063739
    post_mean = 0.65
    post_sd = 0.408248290463863


class HMM_TRUTH:
    """Two states, eight normal observations: the forward algorithm, equal to the sum over 2^8 paths."""

    pi = _tensor([0.6, 0.4])
    T = _tensor([[0.8, 0.2], [0.3, 0.7]])
    mu = _tensor([-1.0, 1.0])
    sd = 1.0
    y = _tensor([-1.2, -0.3, 0.1, 1.4, 0.9, -0.2, 2.0, 0.4])
    log_evidence = -12.225765350295411
    # posterior P(z_t = 1), by the backward algorithm
    P_z_eq_1 = _tensor(
        [
            0.05854343863566184,
            0.23844053245290053,
            0.5930461905253529,
            0.9584667131151728,
            0.944047568964211,
            0.8130237109131011,
            0.986994709529873,
            0.8322694495788552,
        ]
    )


class SCORE_TRUTH:
    """E_{softmax(logits)}[f] and its gradient pi_k (f_k - E f), by enumeration of three outcomes."""

    logits = _tensor([0.3, -0.7, 0.2])
    f = _tensor([1.0, -2.0, 0.5])
    E_f = 0.3153317685710425
    grad = _tensor([0.30125540216555263, -0.37477741835621803, 0.07352201619066545])
    # of f(z) d log pi(z) / d logits, one draw, no baseline
    sd = _tensor([0.43800684496588205, 0.5731530068116135, 0.4505804529185658])


class TWO_MODES_TRUTH:
    """A normal fitted to w0 N(-3, 1) + w1 N(3, 1), by quadrature; forward fits match moments exactly.

    Reverse fits have one local optimum at each mode: start at -3 and +3. Rows are (mean, sd, KL).
    """

    symmetric_weights = (0.5, 0.5)
    asymmetric_weights = (0.3, 0.7)
    # mean = sum w m, variance = 1 + 9 - mean^2
    symmetric_forward = (0.0, 3.1622776602, 0.4619946135)
    asymmetric_forward = (1.2, 2.9257477677, 0.4661889515)
    symmetric_reverse = (
        (-3, (-2.9843060029, 1.0233685536, 0.6887689959)),
        (3, (2.9843059801, 1.0233685677, 0.6887689959)),
    )
    asymmetric_reverse = (
        (-3, (-2.9733725128, 1.0379345661, 1.1966823316)),
        (3, (2.9905398007, 1.0146686053, 0.3540339485)),
    )


class GAUSSIAN_PAIRS:
    """Distances between N(0, 1) and N(loc, sd): quadrature and closed forms, in nats where there are logarithms.

    MMD is squared, with an RBF kernel of bandwidth 1; the energy distance has 2 E|x - y|; squared Hellinger is one
    minus the Bhattacharyya coefficient; Pearson takes its expectation under the second.
    """

    TRUTHS = {  # by (loc, sd)  # noqa: RUF012
        (1.0, 1.0): {
            "js": 0.11142148218447649,
            "gan": -1.1634513967509377,
            "kl": 0.5,
            "reverse-kl": 0.5,
            "total-variation": 0.382924922253746,
            "squared-hellinger": 0.11750309741746134,
            "mmd2": 0.17726763491986186,
            "energy": 0.5418065793059572,
            "w2_squared": 1.0,
            "pearson": 1.718281828459045,
        },
        (3.0, 1.0): {
            "js": 0.5267773065201458,
            "gan": -0.33273974807959905,
            "kl": 4.5,
            "reverse-kl": 4.5,
            "total-variation": 0.8663855971364707,
            "squared-hellinger": 0.675347532642407,
            "mmd2": 0.8970520223272109,
            "energy": 3.777733123108098,
            "w2_squared": 9.0,
        },
        (0.0, 2.0): {
            "js": 0.09273338166619641,
            "gan": -1.2008275977874978,
            "kl": 0.3181471805599453,
            "reverse-kl": 0.8068528194400546,
            "total-variation": 0.3226745689627596,
            "squared-hellinger": 0.10557280900216859,
            "mmd2": 0.09418702159523296,
            "energy": 0.1831107310190041,
            "w2_squared": 1.0,
            "pearson": 0.5118578920369088,
        },
        (6.0, 1.0): {
            "js": 0.6892979330274712,
            "gan": -0.00769849506494813,
            "kl": 18.0,
            "reverse-kl": 18.0,
            "total-variation": 0.9973002039122563,
            "squared-hellinger": 0.9888910034617836,
            "mmd2": 1.1518383219063462,
            "energy": 9.743255085948883,
            "w2_squared": 36.0,
        },
    }


class LDA_TRUTH:
    """Two topics of three words, three documents of four: 4,096 assignments of topics to words, by enumeration."""

    # The inputs are arbitrary.
    alpha, eta = 0.7, 0.4
    documents = ([0, 0, 1, 2], [2, 2, 1, 2], [0, 1, 0, 0])
    counts = _tensor([[2.0, 1.0, 1.0], [0.0, 1.0, 3.0], [3.0, 1.0, 0.0]])
    log_evidence = -14.38741084339316
    same_topic_in_document = 0.38713660554900753  # of words 0 and 3 of the first document
    # Given topics:
    phi = _tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    log_p = _tensor([-4.624170578342608, -3.735280429215387, -3.92760903790928])
    E_theta = _tensor(
        [
            [0.6407528049221859, 0.3592471950778139],
            [0.20565012101733915, 0.7943498789826606],
            [0.8175470552519731, 0.18245294474802667],
        ]
    )


class ISING_TRUTH:
    """p(s) ~ exp(J * sum over 24 bonds of s_i s_j), an open 4 x 4 lattice: the sum over 2^16 states, by J."""

    LOG_Z = {0.2: 11.5815769093409, 0.4: 13.186573417462913, 0.7: 18.107568645002097}  # noqa: RUF012


class BOLTZMANN_TRUTH:
    """16 visible and 4 hidden units in {0, 1}: the sum over 2^4 hidden states, the visible ones summed out."""

    # The inputs are arbitrary.
    weights = 0.8 * torch.sin(1.3 * torch.arange(16.0)[:, None] + 2.1 * torch.arange(4.0)).double()
    visible = 0.3 * torch.cos(torch.arange(16.0)).double()
    hidden = _tensor([-0.2, 0.1, 0.3, -0.4])
    log_z = 15.0976360850317
    E_v = _tensor(
        [
            0.5987968344205021,
            0.7002720130047683,
            0.5381703016596797,
            0.3002056078442937,
            0.32209921051429485,
            0.5867304272736396,
            0.7230188164290097,
            0.58182603788888,
            0.33459778063257734,
            0.32860643759962577,
            0.5433271692252059,
            0.6615464951208199,
            0.5495231599148708,
            0.3900029949952005,
            0.42539473957856044,
            0.577922016635715,
        ]
    )


class SOFT_MDP_TRUTH:
    """Four states, two actions, five steps, uniform prior, alpha = 1: backups of log E exp and of E, in nats.

    The evidence of state 1 is the sum over all trajectories.
    """

    # The inputs are arbitrary.
    P = _tensor(
        [
            [[0.8, 0.2, 0.0, 0.0], [0.2, 0.8, 0.0, 0.0]],
            [[0.8, 0.0, 0.2, 0.0], [0.2, 0.0, 0.8, 0.0]],
            [[0.0, 0.8, 0.0, 0.2], [0.0, 0.2, 0.0, 0.8]],
            [[0.0, 0.0, 0.8, 0.2], [0.0, 0.0, 0.2, 0.8]],
        ]
    )
    R = _tensor([[0.6, -0.1], [0.0, -0.1], [0.0, -0.1], [1.0, 0.9]])
    horizon = 5
    V_variational = _tensor([1.0920151201354051, 0.976742873958213, 1.545933465115537, 2.754888531200397])
    V_posterior = _tensor([1.1584108826157546, 1.1756543707640312, 1.9828773424639614, 3.1241843586975078])
    policy_variational = _tensor(
        [
            [0.6946995146343156, 0.30530048536568427],
            [0.4758310969376402, 0.5241689030623597],
            [0.2877508041296926, 0.7122491958703078],
            [0.35723184858906115, 0.6427681514109387],
        ]
    )
    policy_posterior = _tensor(
        [
            [0.6840024562915342, 0.31599754370846567],
            [0.43833868792437347, 0.5616613120756266],
            [0.30421762078251247, 0.6957823792174878],
            [0.3715958492743323, 0.6284041507256677],
        ]
    )
    # with the likeliest next state for certain, the two quantities are one
    V_deterministic = _tensor([1.2006600539066508, 1.1709198830056557, 1.9443573545084902, 3.0851629583989766])
